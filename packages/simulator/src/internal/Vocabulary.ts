/** The words of the faults: how each is written and what it does. */
import type { Fault } from "../Fault.ts"

export type Kind = "integer" | "milliseconds" | "text" | "boolean"

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

export const grammar: Readonly<Record<Fault["_tag"], Word>> = {
  Status: {
    word: "status",
    example: "status:429;retry-after=3",
    summary:
      "This status with its catalogue error. `code`, `type`, `param`, `message` change the error; `retry-after`, `retry-after-ms`, `should-retry`, `reset-requests`, `reset-tokens` add headers; `location`, `date` do too; `html`, `text`, `empty`, `numeric-code`, `too-large`, `string-error`, `no-fields` change the body, `size` is how many bytes it has.",
    argument: { field: "status", kind: "integer" },
    options: {
      ...errorOptions,
      param: { field: "param", kind: "text" },
      "retry-after": { field: "retryAfter", kind: "text" },
      "retry-after-ms": { field: "retryAfterMs", kind: "text" },
      "should-retry": { field: "shouldRetry", kind: "boolean" },
      "reset-requests": { field: "resetRequests", kind: "text" },
      "reset-tokens": { field: "resetTokens", kind: "text" },
      location: { field: "location", kind: "text" },
      date: { field: "date", kind: "text" },
      size: { field: "size", kind: "integer" }
    },
    flags: {
      html: { field: "body", value: "html" },
      text: { field: "body", value: "text" },
      empty: { field: "body", value: "empty" },
      "numeric-code": { field: "body", value: "numeric-code" },
      "too-large": { field: "body", value: "too-large" },
      "string-error": { field: "body", value: "string-error" },
      "no-fields": { field: "body", value: "no-fields" }
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
      'After n content events an error event, then the end. Shape `{"error":…}`, or with `flat` or `nested` the two shapes of `type: "error"`; `then-failed`: `response.failed` comes after it. On a one-shot reply: a 200 with an error.',
    argument: after,
    options: errorOptions,
    flags: {
      flat: { field: "shape", value: "flat" },
      nested: { field: "shape", value: "nested" },
      "then-failed": { field: "thenFailed", value: true }
    },
    defaults: { shape: "bare", thenFailed: false }
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
  Failed: {
    word: "failed",
    example: "failed",
    summary:
      "Half of the reply, then a response's status `failed`; a chat completion ends with finish reason `length`."
  },
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
    summary: "Lines of the stream end in `lf`, `cr` or `crlf`; `mixed`: event by event in another one.",
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
  },
  Refuse: {
    word: "refuse",
    example: "refuse:500ms",
    summary: "RST to every connection, and for this long the port refuses new ones.",
    argument: { field: "duration", kind: "milliseconds" }
  },
  HalfClose: {
    word: "half-close",
    example: "half-close:5",
    summary: "After n content events the server has said FIN, but goes on reading.",
    argument: after
  },
  CloseAfter: {
    word: "close:after",
    example: "close:after",
    summary: "A sound reply, then FIN without a warning: the connection that a pool keeps is dead."
  },
  DripHeaders: {
    word: "drip-headers",
    example: "drip-headers:5ms",
    summary: "The headers come byte by byte, with this pause before each, then the body; then FIN.",
    argument: { field: "delay", kind: "milliseconds" }
  },
  Early: {
    word: "early",
    example: "early",
    summary:
      "The reply comes while the request is still being sent, then RST. Asked for in the header `x-sim-fault`; else after the body."
  },
  BadEncoding: {
    word: "bad-encoding",
    example: "bad-encoding",
    summary: "`content-encoding: gzip`, and the gzip is damaged."
  },
  ContentType: {
    word: "content-type",
    example: "content-type:text%2Fplain",
    summary: "This content type, whatever the body is.",
    argument: { field: "value", kind: "text" }
  },
  HugeHeaders: {
    word: "huge-headers",
    example: "huge-headers:20000",
    summary: "A header of this many bytes beside the others; Node reads 16 KiB.",
    argument: { field: "bytes", kind: "integer" }
  },
  OddHeaders: {
    word: "odd-headers",
    example: "odd-headers",
    summary: "Header names in odd case, and some twice."
  },
  NoRequestId: {
    word: "no-request-id",
    example: "no-request-id",
    summary: "No `x-request-id`."
  },
  ShortLength: {
    word: "short-length",
    example: "short-length:10",
    summary: "The content-length is n bytes less than the body has.",
    argument: { field: "bytes", kind: "integer" }
  },
  SlowFirstEvent: {
    word: "slow-first-event",
    example: "slow-first-event:2s",
    summary: "The headers come at once, the first event, or the body, this much later.",
    argument: { field: "delay", kind: "milliseconds" }
  },
  Stuck: {
    word: "stuck",
    example: "stuck",
    summary:
      "A background response stays `queued`, a batch `validating`, a file of a vector store `in_progress`."
  },
  MultiLine: {
    word: "multi-line",
    example: "multi-line",
    summary: "The data of an event stands in two `data:` lines."
  },
  NoSpace: {
    word: "no-space",
    example: "no-space",
    summary: "`data:` without the space."
  },
  ExtraFields: {
    word: "extra-fields",
    example: "extra-fields",
    summary: "Lines with `id`, `retry` and an unknown field in every event."
  },
  BigEvent: {
    word: "big-event",
    example: "big-event:1000000",
    summary: "The first content event has a field of n bytes more.",
    argument: { field: "bytes", kind: "integer" }
  },
  DropEvent: {
    word: "drop-event",
    example: "drop-event:2",
    summary: "The n-th content event is missing.",
    argument: { field: "at", kind: "integer" }
  },
  RepeatEvent: {
    word: "repeat-event",
    example: "repeat-event:2",
    summary: "The n-th content event comes twice.",
    argument: { field: "at", kind: "integer" }
  },
  SwapEvents: {
    word: "swap-events",
    example: "swap-events:2",
    summary: "The n-th content event and the next one change places.",
    argument: { field: "at", kind: "integer" }
  },
  RepeatLast: {
    word: "repeat-last",
    example: "repeat-last",
    summary: "The last event comes twice."
  },
  UnknownEvent: {
    word: "unknown-event",
    example: "unknown-event",
    summary: "An event of an unknown type, and one with moderation and no choices, before the content."
  },
  AfterDone: {
    word: "after-done",
    example: "after-done",
    summary: "A content event comes again after the last event."
  },
  ToolCalls: {
    word: "tool-calls",
    example: "tool-calls:no-id",
    summary:
      "The tool calls are wrong: `bad-arguments` (not JSON), `cut-arguments`, `interleaved`, `many` (500), `no-id`, `proto` (a key `__proto__`), `repeated-name`, `sparse` (indexes 0, 2, 4), `unknown-name`.",
    argument: { field: "kind", kind: "text" }
  },
  WrongSchema: {
    word: "wrong-schema",
    example: "wrong-schema",
    summary: "The text is JSON, but not of the schema that was asked for."
  },
  Damage: {
    word: "damage",
    example: "damage:unknown-enum",
    summary:
      "The JSON is valid but wrong: `deep-nesting`, `duplicate-keys`, `huge-number` (1e400), `lone-surrogate`, `missing-fields`, `null-message`, `string-numbers`, `unknown-enum`, `wrong-index` (76).",
    argument: { field: "kind", kind: "text" }
  },
  Usage: {
    word: "usage",
    example: "usage:negative",
    summary: "The usage is wrong: `negative`, `wrong-total`, `cached-above-input`.",
    argument: { field: "kind", kind: "text" }
  },
  Embeddings: {
    word: "embeddings",
    example: "embeddings:fewer",
    summary:
      "The vectors are wrong: `fewer`, `reordered`, `dimension` (one number less), `wrong-length` (base64 cut by a byte), `not-a-number`.",
    argument: { field: "kind", kind: "text" }
  }
}
