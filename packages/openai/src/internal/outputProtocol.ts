/**
 * What structured output must know of a way to ask for it.
 */
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type * as LlmError from "@llm/core/LlmError"
import type * as Usage from "@llm/core/Usage"

/** The form that a reply must have, as both APIs name its parts. */
export interface Format {
  readonly name: string
  readonly description?: string
  readonly schema: { readonly [name: string]: unknown }
  readonly strict: true
}

/** What a whole reply says. */
interface Said {
  readonly text: string
  readonly refusal: string | undefined
  /** `cut` at the limit of tokens, `filtered` by the content filter. */
  readonly ended: "whole" | "cut" | "filtered"
}

/** `Completed` comes last, once. */
export type Event<Reply> =
  | {
      readonly _tag: "Text"
      readonly text: string
      /** What came before was another text. */
      readonly anew: boolean
    }
  | { readonly _tag: "Completed"; readonly reply: Reply }

/** Asks, and reads what comes. */
export interface Protocol<Request, Reply> {
  readonly operations: { readonly create: string; readonly stream: string }
  readonly modelOf: (request: Request) => string | undefined
  readonly create: (request: Request, format: Format) => Effect.Effect<Reply, LlmError.CallError>
  readonly stream: (
    request: Request,
    format: Format
  ) => Stream.Stream<Event<Reply>, LlmError.CallError | LlmError.StreamInterrupted>
  readonly said: (reply: Reply) => Said
  readonly usageOf: (reply: Reply) => Usage.Usage | undefined
  /** The request after its output, answered by these words. */
  readonly answering: (request: Request, output: string, words: string) => Request
}
