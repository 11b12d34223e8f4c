/** The faults of one request, brought into the order in which they act. */
import * as Fault from "../Fault.ts"

type Of<Tag extends Fault.Fault["_tag"]> = Extract<Fault.Fault, { readonly _tag: Tag }>

/** What changes in the reply itself: the route writes it differently. */
export interface Shape {
  readonly noDone: boolean
  readonly noFinish: boolean
  readonly noUsage: boolean
  readonly emptyChoices: boolean
  readonly ending: "refusal" | "content-filter" | "length" | undefined
}

/** How a stream, or a body, breaks off. */
export type Break = Of<"Stall"> | Of<"Cut"> | Of<"Reset"> | Of<"ErrorEvent">

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
  readonly lineEnding: string
  readonly byteOrderMark: boolean
  readonly noBlankLine: boolean
  readonly splitBytes: number | undefined
  /** Milliseconds before every event, or piece of a body. */
  readonly pace: number
}

export const soundShape: Shape = {
  noDone: false,
  noFinish: false,
  noUsage: false,
  emptyChoices: false,
  ending: undefined
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
  lineEnding: "\n",
  byteOrderMark: false,
  noBlankLine: false,
  splitBytes: undefined,
  pace: 0
}

const lineEndings = { lf: "\n", cr: "\r", crlf: "\r\n" } as const

/** Where two faults contradict each other, the later one holds. */
export const fromFaults = (faults: ReadonlyArray<Fault.Fault>): Plan => faults.reduce(add, sound)

const add = (plan: Plan, fault: Fault.Fault): Plan => {
  const set = (change: Partial<Plan>): Plan => ({ ...plan, ...change })
  const shaped = (shape: Partial<Shape>): Plan => set({ shape: { ...plan.shape, ...shape } })
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
    EmptyChoices: () => shaped({ emptyChoices: true }),
    Refusal: () => shaped({ ending: "refusal" }),
    ContentFilter: () => shaped({ ending: "content-filter" }),
    Length: () => shaped({ ending: "length" }),
    Ping: ({ every }) => set({ pingEvery: every }),
    Heartbeat: ({ interval }) => set({ heartbeat: interval }),
    LineEnding: ({ ending }) => set({ lineEnding: lineEndings[ending] }),
    ByteOrderMark: () => set({ byteOrderMark: true }),
    NoBlankLine: () => set({ noBlankLine: true }),
    Split: ({ bytes }) => set({ splitBytes: bytes }),
    SlowBody: ({ delay }) => set({ pace: delay })
  })
}
