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
import type { Kind } from "./internal/Vocabulary.ts"
import { grammar } from "./internal/Vocabulary.ts"

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
    body: Schema.Literals([
      "json",
      "html",
      "text",
      "empty",
      "numeric-code",
      "too-large",
      "string-error",
      "no-fields"
    ]),
    code: Schema.optionalKey(Text),
    type: Schema.optionalKey(Text),
    param: Schema.optionalKey(Text),
    message: Schema.optionalKey(Text),
    retryAfter: Schema.optionalKey(HeaderText),
    retryAfterMs: Schema.optionalKey(HeaderText),
    shouldRetry: Schema.optionalKey(Schema.Boolean),
    resetRequests: Schema.optionalKey(HeaderText),
    resetTokens: Schema.optionalKey(HeaderText),
    location: Schema.optionalKey(HeaderText),
    date: Schema.optionalKey(HeaderText),
    /** Bytes of the body at least: the message is filled up. */
    size: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000_000 })))
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
    /** In a response's stream: `response.failed` comes after it. */
    thenFailed: Schema.Boolean,
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
  Failed: {},
  EmptyChoices: {},
  Ping: { every: Positive },
  Heartbeat: { interval: PositiveMilliseconds },
  LineEnding: { ending: Schema.Literals(["lf", "cr", "crlf", "mixed"]) },
  ByteOrderMark: {},
  NoBlankLine: {},
  Split: { bytes: Positive },
  SlowBody: { delay: Milliseconds },
  Refuse: { duration: Milliseconds },
  HalfClose: { after: Count },
  CloseAfter: {},
  DripHeaders: { delay: Milliseconds },
  Early: {},
  BadEncoding: {},
  ContentType: { value: HeaderText },
  HugeHeaders: { bytes: Positive },
  OddHeaders: {},
  NoRequestId: {},
  ShortLength: { bytes: Positive },
  SlowFirstEvent: { delay: Milliseconds },
  Stuck: {},
  MultiLine: {},
  NoSpace: {},
  ExtraFields: {},
  BigEvent: { bytes: Positive },
  DropEvent: { at: Positive },
  RepeatEvent: { at: Positive },
  SwapEvents: { at: Positive },
  RepeatLast: {},
  UnknownEvent: {},
  AfterDone: {},
  ToolCalls: {
    kind: Schema.Literals([
      "bad-arguments",
      "cut-arguments",
      "interleaved",
      "many",
      "no-id",
      "proto",
      "repeated-name",
      "sparse",
      "unknown-name"
    ])
  },
  WrongSchema: {},
  Damage: {
    kind: Schema.Literals([
      "deep-nesting",
      "duplicate-keys",
      "huge-number",
      "lone-surrogate",
      "missing-fields",
      "null-message",
      "string-numbers",
      "unknown-enum",
      "wrong-index"
    ])
  },
  Usage: { kind: Schema.Literals(["cached-above-input", "negative", "wrong-total"]) },
  Embeddings: { kind: Schema.Literals(["dimension", "fewer", "not-a-number", "reordered", "wrong-length"]) }
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
