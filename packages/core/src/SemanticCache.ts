/**
 * Answers a question with the answer to another one that means the same, as far as embeddings can tell.
 *
 * **Details**
 *
 * A Layer over the `ResponseCache` that is provided below it, for one-shot chat completions whose last
 * message is a user's text. That text is embedded and compared with those that were answered before;
 * everything else of the request (model, parameters, tools, the messages before, tenant) and all numerals
 * in the text must be equal. At a cosine of `threshold` or more the earlier answer is given, with
 * `outcome` `similar`.
 *
 * An exact hit comes first and asks for no embedding; a similar answer is kept there under its new
 * question, but no third question is compared with it. Where the embedding fails or takes too long, the
 * call goes on without.
 *
 * **Gotchas**
 *
 * - This can give wrong answers: no threshold tells "may I" from "may I not" in every case. Use it where
 *   that is bearable, such as a help desk's frequent questions, and measure before.
 * - Each miss costs an embedding, and its time.
 * - The comparison is linear in `capacity`: about a millisecond for a thousand vectors of 1,536 numbers.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Call } from "@llm/core"
 * import * as ResponseCache from "@llm/core/ResponseCache"
 * import * as SemanticCache from "@llm/core/SemanticCache"
 *
 * // In earnest: an embedding model.
 * const embed = (text: string) => Effect.succeed([/refund|money back/iu.test(text) ? 1 : 0, 0.1])
 *
 * const Cache = SemanticCache.layer({ embed, threshold: 0.95 }).pipe(Layer.provide(ResponseCache.layerMemory()))
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * const ask = (content: string) =>
 *   Effect.gen(function* () {
 *     const cache = yield* ResponseCache.ResponseCache
 *     const body = JSON.stringify({ model: "gpt-6-luna", messages: [{ role: "user", content }] })
 *     return yield* cache.run({ call, body }, () =>
 *       Effect.succeed({
 *         _tag: "Whole",
 *         status: 200,
 *         headers: {},
 *         requestId: "req_1",
 *         attempts: 1,
 *         body: new TextEncoder().encode("{}"),
 *         usage: () => undefined
 *       } as const)
 *     )
 *   }).pipe(
 *     Effect.scoped,
 *     Effect.map((reply) => reply.outcome)
 *   )
 *
 * const outcomes = await Effect.runPromise(
 *   Effect.forEach(["How do I get a refund?", "Can I have my money back?", "Where are you?"], ask).pipe(
 *     Effect.provide(Cache)
 *   )
 * )
 * if (outcomes.join() !== "miss,similar,miss") throw new Error(outcomes.join())
 * ```
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as CacheKey from "./CacheKey.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import type { LlmError } from "./LlmError.ts"
import * as ResponseCache from "./ResponseCache.ts"

/** How questions are compared and answers kept. */
export interface Options {
  /** Gives the embedding of a text; always as many numbers. */
  readonly embed: (text: string) => Effect.Effect<ReadonlyArray<number>, LlmError>
  /** The least cosine of two texts that mean the same, above 0 and up to 1; 0.97 unless told. */
  readonly threshold?: number | undefined
  /** The most answers; 1,000 unless told. */
  readonly capacity?: number | undefined
  /** The largest reply that is kept, in bytes; 64 KiB unless told. */
  readonly maxReplyBytes?: number | undefined
  /** How long an answer is good for; 1 hour unless told. */
  readonly timeToLive?: Duration.Input | undefined
  /** How long an embedding may take before the call goes on without; 2 seconds unless told. */
  readonly timeout?: Duration.Input | undefined
}

/** An answer, and the question that it was given to. */
interface Answered {
  /** Equal for requests that differ in nothing but the words of the question. */
  readonly frame: string
  /** Of length 1. */
  readonly direction: Float32Array
  readonly produced: ResponseCache.Produced
  /** Milliseconds since the epoch. */
  readonly until: number
}

/** Puts `SemanticCache` before the `ResponseCache` that is provided to it. */
export const layer = (options: Options): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    ResponseCache.ResponseCache,
    Effect.gen(function* () {
      const owner = "SemanticCache.layer"
      yield* InvalidSetting.check(owner, options, {
        embed: InvalidSetting.callable,
        threshold: InvalidSetting.between(0, 1, false),
        capacity: InvalidSetting.whole(1, 100_000),
        maxReplyBytes: InvalidSetting.whole(1, 1024 * 1024 * 1024),
        timeToLive: InvalidSetting.judgedLater,
        timeout: InvalidSetting.judgedLater
      })
      const timeToLive = yield* InvalidSetting.millis(owner, "timeToLive", options.timeToLive ?? "1 hour", 1)
      const timeout = yield* InvalidSetting.millis(owner, "timeout", options.timeout ?? "2 seconds", 1)
      const threshold = options.threshold ?? 0.97
      const capacity = options.capacity ?? 1000
      const maxReplyBytes = options.maxReplyBytes ?? 64 * 1024
      const exact = yield* ResponseCache.ResponseCache
      /** By exact key; in the order of use. */
      const answers = new Map<string, Answered>()

      const directionOf = (text: string): Effect.Effect<Float32Array | undefined> =>
        Effect.suspend(() => options.embed(text)).pipe(
          Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.succeed([]) }),
          Effect.map(normalised),
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause)
              ? Effect.interrupt
              : Effect.as(
                  Effect.logWarning("a question could not be embedded, the call goes on without"),
                  undefined
                )
          )
        )

      const closest = (frame: string, direction: Float32Array, now: number): Answered | undefined => {
        let best: readonly [key: string, answer: Answered] | undefined
        // The numbers are rounded: equal texts may be a hair's breadth apart.
        let bestCosine = threshold - 1e-6
        for (const [key, answer] of answers) {
          if (answer.frame !== frame) continue
          if (now >= answer.until) {
            answers.delete(key)
            continue
          }
          const cosine = dot(answer.direction, direction)
          if (cosine >= bestCosine) {
            best = [key, answer]
            bestCosine = cosine
          }
        }
        if (best === undefined) return undefined
        const [key, answer] = best
        answers.delete(key)
        answers.set(key, answer)
        return answer
      }

      const keep = (key: string, answer: Answered) => {
        answers.delete(key)
        answers.set(key, answer)
        for (const oldest of answers.keys()) {
          if (answers.size <= capacity) return
          answers.delete(oldest)
        }
      }

      const run: ResponseCache.Service["run"] = (request, produce) =>
        Effect.flatMap(ResponseCache.CacheMode, (mode) => {
          const question = mode === "bypass" ? undefined : questionIn(request)
          if (question === undefined) return exact.run(request, produce)
          let isSimilar = false
          const similarOrProduced: typeof produce = Effect.fnUntraced(function* (call) {
            const direction = yield* directionOf(question.text)
            if (direction === undefined) return yield* produce(call)
            const now = yield* Clock.currentTimeMillis
            const found = mode === "use" ? closest(question.frame, direction, now) : undefined
            if (found !== undefined) {
              isSimilar = true
              return found.produced
            }
            const produced = yield* produce(call)
            const isGood = produced.status >= 200 && produced.status < 300
            if (isGood && produced._tag === "Whole" && produced.body.length <= maxReplyBytes) {
              const usage = produced.usage()
              keep(CacheKey.make(request.call, request.body), {
                frame: question.frame,
                direction,
                produced: {
                  ...produced,
                  attempts: 0,
                  headers: ResponseCache.lastingHeaders(produced.headers),
                  body: Uint8Array.from(produced.body),
                  usage: () => usage
                },
                until: (yield* Clock.currentTimeMillis) + timeToLive
              })
            }
            return produced
          })
          return Effect.map(exact.run(request, similarOrProduced), (reply) => {
            if (isSimilar) return { ...reply, outcome: "similar" }
            // Without a cache below: what went upstream is kept here.
            return reply.outcome === "bypass" ? { ...reply, outcome: "miss" } : reply
          })
        })

      return {
        run,
        invalidate: (request: ResponseCache.Request) =>
          Effect.suspend(() => {
            answers.delete(CacheKey.make(request.call, request.body))
            return exact.invalidate(request)
          }),
        state: exact.state
      }
    })
  )

const Chat = Schema.fromJsonString(
  Schema.StructWithRest(Schema.Struct({ messages: Schema.NonEmptyArray(Schema.Unknown) }), [
    Schema.Record(Schema.String, Schema.Unknown)
  ])
)
const decodeChat = Schema.decodeUnknownOption(Chat)

const UserText = Schema.StructWithRest(
  Schema.Struct({ role: Schema.Literal("user"), content: Schema.String }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)
const isUserText = Schema.is(UserText)

const decoder = new TextDecoder()

/** The question of a one-shot chat completion, and a name for all that is around it; `undefined` for other requests. */
const questionIn = ({
  body,
  call
}: ResponseCache.Request): { readonly text: string; readonly frame: string } | undefined => {
  if (call.stream || call.operation !== "chat.create") return undefined
  const chat = decodeChat(typeof body === "string" ? body : decoder.decode(body))
  if (chat._tag === "None") return undefined
  const last = chat.value.messages.at(-1)
  if (!isUserText(last) || last.content.trim() === "") return undefined
  const numerals = last.content.match(/\p{N}+/gu) ?? []
  const around = {
    ...chat.value,
    messages: [...chat.value.messages.slice(0, -1), { ...last, content: numerals.join(" ") }]
  }
  // A number that a double cannot hold would be taken for another.
  return isExact(around)
    ? { text: last.content, frame: CacheKey.make(call, JSON.stringify(around)) }
    : undefined
}

const isExact = (value: unknown): boolean => {
  if (typeof value === "number")
    return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value))
  return typeof value !== "object" || value === null || Object.values(value).every(isExact)
}

/** `undefined` for what is no direction: nothing, zeros, or not numbers. */
const normalised = (numbers: ReadonlyArray<number>): Float32Array | undefined => {
  const length = Math.hypot(...numbers)
  return Number.isFinite(length) && length > 0
    ? Float32Array.from(numbers, (number) => number / length)
    : undefined
}

/** Directions of different models have different lengths: they are never close. */
const dot = (left: Float32Array, right: Float32Array): number => {
  if (left.length !== right.length) return 0
  let sum = 0
  // By index: this is the loop that all the time goes into.
  for (let index = 0; index < left.length; index++) sum += (left[index] ?? 0) * (right[index] ?? 0)
  return sum
}
