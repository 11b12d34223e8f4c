/**
 * Guards over how large a request is.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as InvalidSetting from "../../InvalidSetting.ts"
import * as Tokenizer from "../../Tokenizer.ts"
import * as RequestTexts from "../requestTexts.ts"
import { type Guard, Refusal, type Request } from "./guard.ts"
import { anyCount, atLeastOne } from "./settings.ts"

/** How large a request may be. At least one is to be set. */
export interface SizeOptions {
  /** Of the body as JSON in UTF-8. */
  readonly maxBytes?: number | undefined
  /** Estimated from the texts, and from tools and images in messages; exact where a `Tokenizer` is provided. */
  readonly maxInputTokens?: number | undefined
  /** Messages of a chat, items of a response or a conversation, inputs of embeddings. */
  readonly maxMessages?: number | undefined
}

const isMessage = Schema.is(Schema.Struct({ role: Schema.String }))
const numbersIn = (value: unknown): number =>
  Array.isArray(value)
    ? value.reduce<number>((sum, item) => sum + (typeof item === "number" ? 1 : numbersIn(item)), 0)
    : 0

/** Refuses requests that are too large. Fails with `InvalidSetting`. */
export const size = (options: SizeOptions): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    const owner = "Guards.size"
    const rules = { maxBytes: anyCount, maxInputTokens: anyCount, maxMessages: anyCount }
    yield* InvalidSetting.check(owner, options, rules)
    yield* atLeastOne(owner, options, Object.keys(rules))
    const { maxBytes, maxInputTokens, maxMessages } = options
    const tokenizer = yield* Effect.flatMap(Effect.serviceOption(Tokenizer.Tokenizer), (own) =>
      Option.isSome(own)
        ? Effect.succeed(own.value)
        : Effect.provide(Tokenizer.Tokenizer, Tokenizer.layerEstimate)
    )

    const tokensOf = Effect.fnUntraced(function* ({ body, call }: Request) {
      const model = call.model ?? ""
      const { messages, tools, ...others } = body
      const talk = Array.isArray(messages) ? messages.filter(isMessage) : []
      let tokens = talk.length === 0 ? 0 : (yield* tokenizer.countMessages(talk, model)).tokens
      const texts = [
        ...RequestTexts.of(others),
        ...(tools === undefined ? [] : [JSON.stringify(tools) ?? ""])
      ]
      for (const text of texts) tokens += (yield* tokenizer.count(text, model)).tokens
      return tokens + numbersIn(body["input"]) + numbersIn(body["prompt"])
    })

    return {
      name: "size",
      before: Effect.fnUntraced(function* (request) {
        const { body } = request
        const param = ["messages", "input", "prompt", "items", "query"].find(
          (name) => body[name] !== undefined
        )
        const tooMuch = (unit: string, asked: number, allowed: number) =>
          new Refusal({
            detail: `the request has ${asked} ${unit}, at most ${allowed} are allowed`,
            ...(param === undefined ? {} : { param })
          })
        const messages = RequestTexts.count(body)
        if (maxMessages !== undefined && messages > maxMessages) {
          return yield* tooMuch("messages", messages, maxMessages)
        }
        if (maxBytes !== undefined) {
          const bytes = new TextEncoder().encode(JSON.stringify(body)).length
          if (bytes > maxBytes) return yield* tooMuch("bytes", bytes, maxBytes)
        }
        if (maxInputTokens !== undefined) {
          const tokens = yield* tokensOf(request)
          if (tokens > maxInputTokens) return yield* tooMuch("input tokens", tokens, maxInputTokens)
        }
        return request
      })
    }
  })
