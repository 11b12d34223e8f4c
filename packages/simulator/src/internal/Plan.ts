/** The faults of one request, brought into the order in which they act. */
import * as Fault from "../Fault.ts"

type Of<Tag extends Fault.Fault["_tag"]> = Extract<Fault.Fault, { readonly _tag: Tag }>

/** What changes in the reply itself: the route writes it differently. */
export interface Shape {
  readonly noDone: boolean
  readonly noFinish: boolean
  readonly noUsage: boolean
  readonly emptyChoices: boolean
  readonly ending: "refusal" | "content-filter" | "length" | "failed" | "wrong-schema" | undefined
  /** What takes its time never goes on. */
  readonly stuck: boolean
}

/** How a stream, or a body, breaks off. */
export type Break = Of<"Stall"> | Of<"Cut"> | Of<"Reset"> | Of<"ErrorEvent"> | Of<"HalfClose">

/** What is wrong with the JSON or the order of the events: `Damage` does it to a sound answer. */
export type Harm =
  | Of<"BigEvent">
  | Of<"DropEvent">
  | Of<"RepeatEvent">
  | Of<"SwapEvents">
  | Of<"RepeatLast">
  | Of<"UnknownEvent">
  | Of<"AfterDone">
  | Of<"ToolCalls">
  | Of<"Damage">
  | Of<"Usage">
  | Of<"Embeddings">

/** How an event is written. */
export interface EventForm {
  readonly lineEnding: "lf" | "cr" | "crlf" | "mixed"
  readonly multiLine: boolean
  readonly noSpace: boolean
  readonly extraFields: boolean
}

/** What is wrong with the head of the reply. */
export interface Head {
  readonly contentType: string | undefined
  /** Bytes of one more header. */
  readonly huge: number | undefined
  readonly odd: boolean
  readonly noRequestId: boolean
  /** Milliseconds before each byte. */
  readonly drip: number | undefined
  /** Bytes that the content-length is too short by. */
  readonly shortLength: number | undefined
  readonly badEncoding: boolean
}

export interface Plan {
  readonly shape: Shape
  /** Milliseconds. */
  readonly headersDelay: number
  readonly silent: "no-headers" | "reset" | "close" | undefined
  readonly status: Of<"Status"> | undefined
  readonly replacement: "html" | "empty" | Of<"Error200"> | undefined
  readonly break: Break | undefined
  /** Content events before the event that is not JSON. */
  readonly badJsonAfter: number | undefined
  readonly truncated: boolean
  readonly pingEvery: number | undefined
  /** Milliseconds. */
  readonly heartbeat: number | undefined
  readonly form: EventForm
  readonly byteOrderMark: boolean
  readonly noBlankLine: boolean
  readonly splitBytes: number | undefined
  /** Milliseconds before every event, or piece of a body. */
  readonly pace: number
  /** Milliseconds between the headers and the first event, or the body. */
  readonly firstEventDelay: number
  readonly head: Head
  readonly harms: ReadonlyArray<Harm>
  readonly closeAfter: boolean
  readonly early: boolean
  /** Milliseconds for which nobody listens. */
  readonly refuse: number | undefined
}

export const soundShape: Shape = {
  noDone: false,
  noFinish: false,
  noUsage: false,
  emptyChoices: false,
  ending: undefined,
  stuck: false
}

export const sound: Plan = {
  shape: soundShape,
  headersDelay: 0,
  silent: undefined,
  status: undefined,
  replacement: undefined,
  break: undefined,
  badJsonAfter: undefined,
  truncated: false,
  pingEvery: undefined,
  heartbeat: undefined,
  form: { lineEnding: "lf", multiLine: false, noSpace: false, extraFields: false },
  byteOrderMark: false,
  noBlankLine: false,
  splitBytes: undefined,
  pace: 0,
  firstEventDelay: 0,
  head: {
    contentType: undefined,
    huge: undefined,
    odd: false,
    noRequestId: false,
    drip: undefined,
    shortLength: undefined,
    badEncoding: false
  },
  harms: [],
  closeAfter: false,
  early: false,
  refuse: undefined
}

/** Where two faults contradict each other, the later one holds. */
export const fromFaults = (faults: ReadonlyArray<Fault.Fault>): Plan => faults.reduce(add, sound)

const add = (plan: Plan, fault: Fault.Fault): Plan => {
  const set = (change: Partial<Plan>): Plan => ({ ...plan, ...change })
  const shaped = (shape: Partial<Shape>): Plan => set({ shape: { ...plan.shape, ...shape } })
  const formed = (form: Partial<EventForm>): Plan => set({ form: { ...plan.form, ...form } })
  const headed = (head: Partial<Head>): Plan => set({ head: { ...plan.head, ...head } })
  const harmed = (harm: Harm): Plan => set({ harms: [...plan.harms, harm] })
  return Fault.Fault.match(fault, {
    Status: (status) => set({ status }),
    SlowHeaders: ({ delay }) => set({ headersDelay: delay }),
    NoHeaders: () => set({ silent: "no-headers" }),
    ResetBeforeHeaders: () => set({ silent: "reset" }),
    CloseBeforeHeaders: () => set({ silent: "close" }),
    Stall: (stall) => set({ break: stall }),
    Cut: (cut) => set({ break: cut }),
    Reset: (reset) => set({ break: reset }),
    ErrorEvent: (event) => set({ break: event }),
    BadJson: ({ after }) => set({ badJsonAfter: after }),
    TruncatedBody: () => set({ truncated: true }),
    Html: () => set({ replacement: "html" }),
    Empty: () => set({ replacement: "empty" }),
    Error200: (error) => set({ replacement: error }),
    NoDone: () => shaped({ noDone: true }),
    NoFinish: () => shaped({ noFinish: true }),
    NoUsage: () => shaped({ noUsage: true }),
    Failed: () => shaped({ ending: "failed" }),
    EmptyChoices: () => shaped({ emptyChoices: true }),
    Refusal: () => shaped({ ending: "refusal" }),
    ContentFilter: () => shaped({ ending: "content-filter" }),
    Length: () => shaped({ ending: "length" }),
    Ping: ({ every }) => set({ pingEvery: every }),
    Heartbeat: ({ interval }) => set({ heartbeat: interval }),
    LineEnding: ({ ending }) => formed({ lineEnding: ending }),
    ByteOrderMark: () => set({ byteOrderMark: true }),
    NoBlankLine: () => set({ noBlankLine: true }),
    Split: ({ bytes }) => set({ splitBytes: bytes }),
    SlowBody: ({ delay }) => set({ pace: delay }),
    Refuse: ({ duration }) => set({ refuse: duration, silent: "reset" }),
    HalfClose: (half) => set({ break: half }),
    CloseAfter: () => set({ closeAfter: true }),
    DripHeaders: ({ delay }) => headed({ drip: delay }),
    Early: () => set({ early: true }),
    BadEncoding: () => headed({ badEncoding: true }),
    ContentType: ({ value }) => headed({ contentType: value }),
    HugeHeaders: ({ bytes }) => headed({ huge: bytes }),
    OddHeaders: () => headed({ odd: true }),
    NoRequestId: () => headed({ noRequestId: true }),
    ShortLength: ({ bytes }) => headed({ shortLength: bytes }),
    SlowFirstEvent: ({ delay }) => set({ firstEventDelay: delay }),
    Stuck: () => shaped({ stuck: true }),
    MultiLine: () => formed({ multiLine: true }),
    NoSpace: () => formed({ noSpace: true }),
    ExtraFields: () => formed({ extraFields: true }),
    BigEvent: harmed,
    DropEvent: harmed,
    RepeatEvent: harmed,
    SwapEvents: harmed,
    RepeatLast: harmed,
    UnknownEvent: harmed,
    AfterDone: harmed,
    ToolCalls: harmed,
    WrongSchema: () => shaped({ ending: "wrong-schema" }),
    Damage: harmed,
    Usage: harmed,
    Embeddings: harmed
  })
}
