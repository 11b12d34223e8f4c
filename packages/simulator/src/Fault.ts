/**
 * The vocabulary of what the simulator can do wrong.
 *
 * **Details**
 *
 * A fault is data: a tagged value, decoded by one Schema, with a compact text form for the header `x-sim-fault`
 * and for a model name (`gpt-6-luna+fault=status:429;retry-after=3`). A new misfortune of the outside world
 * becomes a word here first.
 *
 * The text form of one fault is `word`, `word:argument`, and then `;key=value` or `;flag` for its options.
 * Values are percent-encoded where they hold one of `% , ; = + :` or a space. Several faults are joined by `,`.
 *
 * **Gotchas**
 *
 * "After n events" counts content events (text, refusal and tool-call pieces), not the role chunk. A reply with
 * fewer content events has the fault right after its last one, so a scripted fault always happens.
 */
import { Result, Schema } from "effect"

const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))
const Positive = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))
/** A day is the most: a longer timer would overflow what Node can wait for. */
const Milliseconds = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 86_400_000 }))
const PositiveMilliseconds = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 86_400_000 }))
/** Lone surrogates have no percent-encoding. */
const Text = Schema.String.check(Schema.makeFilter((text) => text.isWellFormed()))
/** Node refuses to send anything else in a header. */
const HeaderText = Schema.String.check(Schema.isPattern(/^[ -~]*$/))

/**
 * One thing that goes wrong with one request. Times are whole milliseconds.
 *
 * Delays are strings where the server may send nonsense: `retryAfter` goes on the wire as it stands, so that `abc`,
 * `-1` and HTTP dates can be sent.
 */
export const Fault = Schema.TaggedUnion({
  Status: {
    status: Schema.Int.check(Schema.isBetween({ minimum: 200, maximum: 599 })),
    body: Schema.Literals(["json", "html", "text", "empty", "numeric-code", "too-large"]),
    code: Schema.optionalKey(Text),
    type: Schema.optionalKey(Text),
    param: Schema.optionalKey(Text),
    message: Schema.optionalKey(Text),
    retryAfter: Schema.optionalKey(HeaderText),
    retryAfterMs: Schema.optionalKey(HeaderText),
    shouldRetry: Schema.optionalKey(Schema.Boolean),
    resetRequests: Schema.optionalKey(HeaderText),
    resetTokens: Schema.optionalKey(HeaderText)
  },
  SlowHeaders: { delay: Milliseconds },
  NoHeaders: {},
  ResetBeforeHeaders: {},
  CloseBeforeHeaders: {},
  Stall: { after: Count },
  Cut: { after: Count, abrupt: Schema.Boolean },
  Reset: { after: Count },
  ErrorEvent: {
    after: Count,
    shape: Schema.Literals(["bare", "flat", "nested"]),
    code: Schema.optionalKey(Text),
    type: Schema.optionalKey(Text),
    message: Schema.optionalKey(Text)
  },
  BadJson: { after: Count },
  TruncatedBody: {},
  Html: {},
  Empty: {},
  Error200: { code: Schema.optionalKey(Text), message: Schema.optionalKey(Text) },
  NoDone: {},
  NoFinish: {},
  NoUsage: {},
  Refusal: {},
  ContentFilter: {},
  Length: {},
  EmptyChoices: {},
  Ping: { every: Positive },
  Heartbeat: { interval: PositiveMilliseconds },
  LineEnding: { ending: Schema.Literals(["lf", "cr", "crlf"]) },
  ByteOrderMark: {},
  NoBlankLine: {},
  Split: { bytes: Positive },
  SlowBody: { delay: Milliseconds }
})
export type Fault = typeof Fault.Type

/**
 * Constructors, one per fault: `Fault.cases.Stall.make({ after: 5 })`. The text form is usually shorter.
 */
export const cases = Fault.cases

/** A fault text that no fault answers to. `reason` says what is wrong and what would be right. */
export class InvalidFault extends Schema.TaggedError<InvalidFault>()("InvalidFault", {
  text: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `Unknown fault "${this.text}": ${this.reason}`
  }
}

type Kind = "integer" | "milliseconds" | "text" | "boolean"

interface Field {
  readonly field: string
  readonly kind: Kind
}

interface Word {
  /** What is written: a word, or a word with a fixed argument. */
  readonly word: string
  readonly example: string
  readonly summary: string
  /** Without a default the argument must be written. */
  readonly argument?: Field & { readonly fallback?: number }
  readonly options?: Readonly<Record<string, Field>>
  readonly flags?: Readonly<Record<string, { readonly field: string; readonly value: string | boolean }>>
  /** What a flag's field holds when no flag is written. */
  readonly defaults?: Readonly<Record<string, string | boolean>>
}

const errorOptions = {
  code: { field: "code", kind: "text" },
  type: { field: "type", kind: "text" },
  message: { field: "message", kind: "text" }
} as const

const after = { field: "after", kind: "integer" } as const

const grammar: Readonly<Record<Fault["_tag"], Word>> = {
  Status: {
    word: "status",
    example: "status:429;retry-after=3",
    summary:
      "This status with its catalogue error. `code`, `type`, `param`, `message` change the error; `retry-after`, `retry-after-ms`, `should-retry`, `reset-requests`, `reset-tokens` add headers; `html`, `text`, `empty`, `numeric-code`, `too-large` change the body.",
    argument: { field: "status", kind: "integer" },
    options: {
      ...errorOptions,
      param: { field: "param", kind: "text" },
      "retry-after": { field: "retryAfter", kind: "text" },
      "retry-after-ms": { field: "retryAfterMs", kind: "text" },
      "should-retry": { field: "shouldRetry", kind: "boolean" },
      "reset-requests": { field: "resetRequests", kind: "text" },
      "reset-tokens": { field: "resetTokens", kind: "text" }
    },
    flags: {
      html: { field: "body", value: "html" },
      text: { field: "body", value: "text" },
      empty: { field: "body", value: "empty" },
      "numeric-code": { field: "body", value: "numeric-code" },
      "too-large": { field: "body", value: "too-large" }
    },
    defaults: { body: "json" }
  },
  SlowHeaders: {
    word: "slow-headers",
    example: "slow-headers:500ms",
    summary: "The reply starts this much later.",
    argument: { field: "delay", kind: "milliseconds" }
  },
  NoHeaders: {
    word: "no-headers",
    example: "no-headers",
    summary: "Never answers; the connection stays open."
  },
  ResetBeforeHeaders: {
    word: "reset:headers",
    example: "reset:headers",
    summary: "RST before any byte of the reply."
  },
  CloseBeforeHeaders: {
    word: "close:headers",
    example: "close:headers",
    summary: "FIN before any byte of the reply."
  },
  Stall: {
    word: "stall",
    example: "stall:5",
    summary: "After n content events nothing more comes; the connection stays open.",
    argument: after
  },
  Cut: {
    word: "cut",
    example: "cut:40",
    summary:
      "After n content events the body ends cleanly, as if complete. `abrupt`: FIN in the middle of the HTTP body.",
    argument: after,
    flags: { abrupt: { field: "abrupt", value: true } },
    defaults: { abrupt: false }
  },
  Reset: {
    word: "reset",
    example: "reset:40",
    summary: "RST after n content events.",
    argument: after
  },
  ErrorEvent: {
    word: "error-event",
    example: "error-event:3;code=rate_limit_exceeded;nested",
    summary:
      'After n content events an error event, then the end. Shape `{"error":…}`, or with `flat` or `nested` the two shapes of `type: "error"`. On a one-shot reply: a 200 with an error.',
    argument: after,
    options: errorOptions,
    flags: { flat: { field: "shape", value: "flat" }, nested: { field: "shape", value: "nested" } },
    defaults: { shape: "bare" }
  },
  BadJson: {
    word: "bad-json",
    example: "bad-json",
    summary: "The body is not JSON; in a stream, one event after n content events (default 0) is not.",
    argument: { ...after, fallback: 0 }
  },
  TruncatedBody: {
    word: "truncated-body",
    example: "truncated-body",
    summary:
      "The body ends before its content-length; a stream ends inside an event and without its last chunk."
  },
  Html: { word: "html", example: "html", summary: "Status 200 with an HTML page." },
  Empty: { word: "empty", example: "empty", summary: "Status 200 with an empty body." },
  Error200: {
    word: "error-200",
    example: "error-200",
    summary: 'Status 200 with `{"error":…}`.',
    options: { code: errorOptions.code, message: errorOptions.message }
  },
  NoDone: { word: "no-done", example: "no-done", summary: "A finish reason, but no `[DONE]`." },
  NoFinish: { word: "no-finish", example: "no-finish", summary: "`[DONE]`, but no finish reason." },
  NoUsage: { word: "no-usage", example: "no-usage", summary: "No usage, also when it was asked for." },
  Refusal: {
    word: "refusal",
    example: "refusal",
    summary: "The model refuses: text in `refusal`, none in `content`."
  },
  ContentFilter: {
    word: "content-filter",
    example: "content-filter",
    summary: "Half of the reply, then finish reason `content_filter`."
  },
  Length: { word: "length", example: "length", summary: "Half of the reply, then finish reason `length`." },
  EmptyChoices: { word: "empty-choices", example: "empty-choices", summary: "`choices` is empty." },
  Ping: {
    word: "ping",
    example: "ping:3",
    summary: "A comment (`: ping`) before every n-th content event (default 1).",
    argument: { field: "every", kind: "integer", fallback: 1 }
  },
  Heartbeat: {
    word: "heartbeat",
    example: "heartbeat:50ms",
    summary: "A comment at this interval for as long as the stream is open, also while it stalls.",
    argument: { field: "interval", kind: "milliseconds" }
  },
  LineEnding: {
    word: "chunked",
    example: "chunked:crlf",
    summary: "Lines of the stream end in `lf`, `cr` or `crlf`.",
    argument: { field: "ending", kind: "text" }
  },
  ByteOrderMark: { word: "bom", example: "bom", summary: "The stream begins with a byte order mark." },
  NoBlankLine: {
    word: "no-blank-line",
    example: "no-blank-line",
    summary: "The blank line after the last event is missing."
  },
  Split: {
    word: "split",
    example: "split:1",
    summary: "The body comes in writes of n bytes, also through the middle of a character.",
    argument: { field: "bytes", kind: "integer", fallback: 1 }
  },
  SlowBody: {
    word: "slow-body",
    example: "slow-body:20ms",
    summary: "This pause before every event, or sixteenth of a one-shot body (default 20 ms).",
    argument: { field: "delay", kind: "milliseconds", fallback: 20 }
  }
}

/** Every word, with an example and what it does, in the order of the README. */
export const vocabulary: ReadonlyArray<{
  readonly word: string
  readonly example: string
  readonly summary: string
}> = Object.values(grammar).map(({ word, example, summary }) => ({ word, example, summary }))

const tagged = Object.entries(grammar).map(([tag, word]) => ({ tag, ...word }))
const byWord = new Map(tagged.map((entry) => [entry.word, entry]))
const decodeFault = Schema.decodeUnknownResult(Fault)

/**
 * Reads the text form of one or more faults, as in the header `x-sim-fault`. An empty text is no fault.
 * Fails with `InvalidFault` for a word, option or value that is not in the vocabulary.
 */
export const parse = (text: string): Result.Result<ReadonlyArray<Fault>, InvalidFault> => {
  const faults: Array<Fault> = []
  if (text.trim() === "") return Result.succeed(faults)
  for (const item of text.split(",")) {
    const fault = parseOne(item.trim())
    if (Result.isFailure(fault)) return Result.fail(fault.failure)
    faults.push(fault.success)
  }
  return Result.succeed(faults)
}

const parseOne = (text: string): Result.Result<Fault, InvalidFault> => {
  const invalid = (reason: string) => Result.fail(new InvalidFault({ text, reason }))
  const [head = "", ...options] = text.split(";")
  const colon = head.indexOf(":")
  const name = colon === -1 ? head : head.slice(0, colon)
  const exact = byWord.get(head)
  const word = exact ?? byWord.get(name)
  if (word === undefined) {
    return invalid(`the words are ${tagged.map((entry) => entry.word).join(", ")}`)
  }
  const candidate: Record<string, unknown> = { ...word.defaults, _tag: word.tag }
  const written = exact !== undefined || colon === -1 ? undefined : head.slice(colon + 1)
  if (written !== undefined) {
    if (word.argument === undefined) return invalid(`"${word.word}" takes no argument`)
    const value = readValue(word.argument.kind, written)
    if (value === undefined)
      return invalid(`"${written}" is not a value for "${word.word}", see "${word.example}"`)
    candidate[word.argument.field] = value
  } else if (word.argument !== undefined) {
    if (word.argument.fallback === undefined)
      return invalid(`"${word.word}" needs an argument, see "${word.example}"`)
    candidate[word.argument.field] = word.argument.fallback
  }
  for (const option of options) {
    const equals = option.indexOf("=")
    const key = equals === -1 ? option : option.slice(0, equals)
    if (equals === -1) {
      const flag = word.flags?.[key]
      if (flag === undefined) return invalid(`"${word.word}" has no flag "${key}"`)
      candidate[flag.field] = flag.value
      continue
    }
    const field = word.options?.[key]
    if (field === undefined) return invalid(`"${word.word}" has no option "${key}"`)
    const value = readValue(field.kind, option.slice(equals + 1))
    if (value === undefined) return invalid(`"${option}" has no usable value`)
    candidate[field.field] = value
  }
  return Result.mapError(decodeFault(candidate), (error) => new InvalidFault({ text, reason: error.message }))
}

const readValue = (kind: Kind, text: string): string | number | boolean | undefined => {
  switch (kind) {
    case "integer":
      return /^\d{1,9}$/.test(text) ? Number(text) : undefined
    case "milliseconds": {
      const match = /^(\d{1,9})(ms|s)?$/.exec(text)
      if (match === null) return undefined
      return Number(match[1]) * (match[2] === "s" ? 1000 : 1)
    }
    case "boolean":
      return text === "true" ? true : text === "false" ? false : undefined
    case "text":
      try {
        return decodeURIComponent(text)
      } catch {
        return undefined
      }
  }
}

/** Writes faults in the form that `parse` reads. */
export const format = (faults: ReadonlyArray<Fault>): string => faults.map(formatOne).join(",")

const formatOne = (fault: Fault): string => {
  const word = grammar[fault._tag]
  const values = new Map<string, unknown>(Object.entries(fault))
  let text = word.word
  if (word.argument !== undefined) {
    text += `:${writeValue(word.argument.kind, values.get(word.argument.field))}`
  }
  for (const [key, field] of Object.entries(word.options ?? {})) {
    const value = values.get(field.field)
    if (value !== undefined) text += `;${key}=${writeValue(field.kind, value)}`
  }
  for (const [key, flag] of Object.entries(word.flags ?? {})) {
    if (values.get(flag.field) === flag.value) text += `;${key}`
  }
  return text
}

const writeValue = (kind: Kind, value: unknown): string =>
  kind === "milliseconds" ? `${String(value)}ms` : encodeURIComponent(String(value))

/** How faults may be given in code: as text, as a value, as several, or none. */
export type Input = string | Fault | ReadonlyArray<Fault> | null

/** The faults of an `Input`. Throws `InvalidFault` for an unknown text: a test's script is a constant. */
export const fromInput = (input: Input): ReadonlyArray<Fault> => {
  if (input === null) return []
  if (typeof input === "string") return Result.getOrThrow(parse(input))
  return "_tag" in input ? [input] : input
}
