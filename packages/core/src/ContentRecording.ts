/**
 * What was asked and answered, on spans and in log events: only for those who ask for it.
 *
 * **Details**
 *
 * Off unless this Layer is provided to `Resilience`, beside `Telemetry.layerSpans`: a call's span then carries
 * `gen_ai.input.messages`, `gen_ai.output.messages` and `gen_ai.system_instructions`, as JSON after the schemas of
 * OpenTelemetry's conventions for generative AI; or a log record `gen_ai.client.inference.operation.details` does.
 * Every text goes through `Redaction` first, and each attribute is cut to a limit, which shows in it. Pictures and
 * sound are named, never recorded.
 *
 * **Gotchas**
 *
 * Redaction knows secrets by their shape: what people write about themselves in plain words stays in.
 *
 * @example
 * ```ts
 * import { ContentRecording, Observer, Resilience, Telemetry } from "@llm/core"
 * import { Layer } from "effect"
 *
 * export const seen = Resilience.layerDefault.pipe(
 *   Layer.provide(
 *     Observer.layerAll([Telemetry.layerSpans, ContentRecording.layer({ mode: "span_only", limit: 8192 })])
 *   )
 * )
 * ```
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as RecordedContent from "./internal/recordedContent.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as Observer from "./Observer.ts"
import * as Redaction from "./Redaction.ts"

// ---------------------------------------------------------------------------
// Content
// ---------------------------------------------------------------------------

/** A piece of a message, after the published schema; `arguments` and `response` as text. */
export type Part =
  | { readonly type: "text" | "reasoning"; readonly content: string }
  | {
      readonly type: "tool_call"
      readonly id?: string | undefined
      readonly name: string
      /** JSON text, recorded as the value that it stands for where it is whole. */
      readonly arguments?: string | undefined
    }
  | { readonly type: "tool_call_response"; readonly id?: string | undefined; readonly response: string }
  /** Data that was sent along, without the data. */
  | { readonly type: "blob"; readonly modality: string; readonly content: "" }
  | { readonly type: "uri"; readonly modality: string; readonly uri: string }
  | { readonly type: "file"; readonly modality: string; readonly file_id: string }

/** A message of a request. */
export interface Message {
  readonly role: string
  readonly parts: ReadonlyArray<Part>
}

/** A message of a reply: one of its choices. */
export interface OutputMessage extends Message {
  /** `stop`, `length`, `content_filter`, `tool_call` or `error`, or the provider's own. */
  readonly finish_reason?: string | undefined
}

/** What one exchange asked and was answered. */
export interface Content {
  /** Instructions that stand apart from the messages. */
  readonly system: ReadonlyArray<Part>
  readonly input: ReadonlyArray<Message>
  readonly output: ReadonlyArray<OutputMessage>
  /** The reply's name and model, as the provider gave them. */
  readonly responseId?: string | undefined
  readonly responseModel?: string | undefined
}

/** How an exchange tells its content. */
export interface Recorder {
  /** The most bytes of an attribute: more need not be kept. */
  readonly limit: number
  /** Read once, when the call has ended, and only where somebody looks. */
  readonly record: (content: () => Content) => void
}

/** By their names. */
export type Attributes = Readonly<Record<string, string | ReadonlyArray<string>>>

/** The content of a call as it may be shown: redacted and cut. */
export interface Recorded {
  /** Whether it goes on the span. */
  readonly spans: boolean
  /** By the name of the attribute; worked out at the first call. */
  readonly attributes: () => Attributes
}

// ---------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------

/** Where content goes, in the words of `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`. */
export type Mode = "no_content" | "span_only" | "event_only" | "span_and_event"

/** What may be set. */
export interface Options {
  /** `span_only` unless told. */
  readonly mode?: Mode | undefined
  /** The most bytes of each attribute; 16,384 unless told. */
  readonly limit?: number | undefined
  /** Removed besides what `Redaction` knows. */
  readonly patterns?: ReadonlyArray<RegExp> | undefined
}

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  mode: InvalidSetting.oneOf("no_content", "span_only", "event_only", "span_and_event"),
  limit: InvalidSetting.whole(256, 16 * 1024 * 1024),
  patterns: {
    allowed: "an array of regular expressions",
    accepts: (value) => Array.isArray(value) && value.every((pattern) => pattern instanceof RegExp)
  }
}

/** What the pipe asks of content. */
export interface Service {
  readonly limit: number
  readonly show: (content: () => Content) => Recorded
}

/** Nothing is recorded unless a Layer is provided. */
export const ContentRecording = Context.Reference<Service | undefined>("@llm/core/ContentRecording", {
  defaultValue: () => undefined
})

// ---------------------------------------------------------------------------
// Layers
// ---------------------------------------------------------------------------

/** The name that the conventions give to the event. */
const eventName = "gen_ai.client.inference.operation.details"

/** A log record for each call whose content is known. */
const events = /* @__PURE__ */ Observer.layerEffect(
  /* @__PURE__ */ Effect.contextWith((context: Context.Context<never>) => {
    const run = Effect.runForkWith(context)
    return Effect.succeed<Observer.Observe>((event) => {
      if (event._tag !== "CallEnded" || event.content === undefined) return
      run(
        Effect.logInfo(eventName).pipe(
          Effect.annotateLogs({
            "event.name": eventName,
            "llm.call.id": event.call.id ?? "none",
            ...event.content.attributes()
          })
        )
      )
    })
  })
)

/** It is read in the middle of a call, which must not fail for it: a pattern of somebody's own may throw. */
const attributesOf = (
  content: () => Content,
  limit: number,
  redact: (text: string) => string
): Attributes => {
  try {
    return RecordedContent.attributesOf(content(), limit, redact)
  } catch {
    return { "llm.content.error": "the content could not be read" }
  }
}

/**
 * Records content. Fails at start with `InvalidSetting`.
 *
 * @param options where it goes, how much of it, and what is removed besides the rest
 */
export const layer = (options: Options = {}): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.unwrap(
    Effect.gen(function* () {
      yield* InvalidSetting.check("ContentRecording.layer", options, rules)
      const { limit = 16_384, mode = "span_only", patterns } = options
      if (mode === "no_content") return Layer.empty
      const redact = Redaction.make({ patterns })
      const spans = mode !== "event_only"
      const service = Layer.succeed(ContentRecording, {
        limit,
        show: (content) => {
          let shown: Attributes | undefined
          return { spans, attributes: () => (shown ??= attributesOf(content, limit, redact)) }
        }
      })
      return mode === "span_only" ? service : Layer.merge(service, events)
    })
  )

const modes: ReadonlyMap<string, Mode> = new Map<string, Mode>([
  ["", "no_content"],
  ["false", "no_content"],
  ["no_content", "no_content"],
  ["span_only", "span_only"],
  ["event_only", "event_only"],
  ["span_and_event", "span_and_event"],
  // What the conventions' first version of the variable took.
  ["true", "span_and_event"]
])

const variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

/**
 * Records content as `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says: `span_only`, `event_only`,
 * `span_and_event` or `true` for both, whatever the case of the letters; nothing where it is not set. Fails with
 * `InvalidSetting` where it says anything else.
 */
export const layerConfig: Layer.Layer<never, InvalidSetting.InvalidSetting | Config.ConfigError> =
  /* @__PURE__ */ Layer.suspend(() =>
    Layer.unwrap(
      Effect.gen(function* () {
        const value = Option.getOrElse(yield* Config.option(Config.String(variable)), () => "")
        const mode = modes.get(value.trim().toLowerCase())
        if (mode !== undefined) return layer({ mode })
        return yield* new InvalidSetting.InvalidSetting({
          owner: "ContentRecording.layerConfig",
          setting: variable,
          value: JSON.stringify(value),
          allowed: [...modes.keys()].filter((name) => name !== "").join(" or ")
        })
      })
    )
  )
