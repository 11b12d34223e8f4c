/**
 * Raw requests for embeddings, sent upstream together: what `EmbeddingBatcher` is to a program, for a gateway.
 *
 * **Details**
 *
 * Requests of one tenant, key, model, size, encoding and set of headers that come within `window` go out as one,
 * equal texts once. Each caller gets the reply that they would have got alone: their own vectors as the server wrote
 * them, counted from 0, and their share of the usage. Shares are in proportion to the callers' texts, whole tokens,
 * and sum up to what the server told.
 *
 * Only what can be taken apart again is gathered: texts with `model`, `dimensions` and `encoding_format`, and no
 * other field. A request with a deadline, one that is to go alone, lists of tokens, empty or too long texts, and
 * whatever else pass at once, as they are.
 *
 * Where a batch is refused for what is in it, or for its size, it is parted by halves, down to the requests as they
 * came. A caller who leaves takes nobody along; when the last one has left, the request is given up.
 *
 * **Gotchas**
 *
 * The policies see one call for each batch: one request of the limits, one row of the ledger, under the id of the
 * first that asked and in its context. A batch is not looked for in the cache.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { EmbeddingRelay, OpenAi } from "@llm/openai"
 * import { Effect, Layer } from "effect"
 *
 * const model = "text-embedding-3-small"
 *
 * const program = Effect.gen(function* () {
 *   const { raw } = yield* OpenAi.OpenAi
 *   const send = yield* EmbeddingRelay.make({ window: "5 millis" }, raw)
 *   const ask = (input: string) =>
 *     send({
 *       method: "post",
 *       path: "/embeddings",
 *       operation: "embeddings.create",
 *       model,
 *       stream: false,
 *       body: JSON.stringify({ model, input })
 *     })
 *   const [one] = yield* Effect.forEach(["one", "two"], ask, { concurrency: "unbounded" })
 *   return one?.batched // 2
 * })
 *
 * export const runnable = Effect.scoped(program).pipe(
 *   Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
 * )
 * ```
 */
import type * as Duration from "effect/Duration"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as InvalidSetting from "@llm/core/InvalidSetting"
import type * as LlmError from "@llm/core/LlmError"
import * as Usage from "@llm/core/Usage"
import * as EmbeddingInput from "./internal/embeddingInput.ts"
import type { RawReply, RawRequest } from "./Passthrough.ts"

/** How requests are gathered. */
export interface Options {
  /** How long a batch waits for more requests; 5 milliseconds unless told. */
  readonly window?: Duration.Input | undefined
  /** The most texts of a batch; 2,048 unless told, which is also the most that OpenAI takes. */
  readonly maxItems?: number | undefined
  /** The most tokens of a batch, estimated; 300,000 unless told, which is also the most that OpenAI takes. */
  readonly maxTokens?: number | undefined
}

/** As `Passthrough.send` makes it. */
export type Send = (request: RawRequest) => Effect.Effect<RawReply, LlmError.CallError, Scope.Scope>

// ---------------------------------------------------------------------------
// What can be gathered
// ---------------------------------------------------------------------------

const Asked = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Schema.Union([Schema.String, Schema.NonEmptyArray(Schema.String)]),
  dimensions: Schema.optionalKey(Schema.Int),
  encoding_format: Schema.optionalKey(Schema.Literals(["float", "base64"]))
})

const decodeAsked = Schema.decodeUnknownOption(Schema.fromJsonString(Asked), { onExcessProperty: "error" })

const decoder = new TextDecoder("utf-8", { fatal: true })
const encoder = new TextEncoder()

const textOf = (body: string | Uint8Array): string | undefined => {
  if (typeof body === "string") return body
  try {
    return decoder.decode(body)
  } catch {
    return undefined
  }
}

/** The texts of a request, and what others must have in common with it. */
interface Wanted {
  readonly texts: ReadonlyArray<string>
  /** Estimated. */
  readonly tokens: number
  readonly key: string
  /** The request for these texts. */
  readonly body: (input: ReadonlyArray<string>) => string
}

/** `undefined` for what goes out as it came. */
const wantedOf = (request: RawRequest): Wanted | undefined => {
  const { alone, body, deadline, headers, keyId, operation, path, stream, tenant } = request
  if (operation !== "embeddings.create" || path !== "/embeddings" || stream) return undefined
  // The name of one request is not that of all.
  if (alone === true || deadline !== undefined || headers?.["x-client-request-id"] !== undefined)
    return undefined
  if (typeof body !== "string" && !(body instanceof Uint8Array)) return undefined
  const text = textOf(body)
  const decoded = text === undefined ? Option.none() : decodeAsked(text)
  if (Option.isNone(decoded)) return undefined
  const { input, ...rest } = decoded.value
  const texts: ReadonlyArray<string> = typeof input === "string" ? [input] : input
  if (texts.some((one) => EmbeddingInput.problemOf(one, rest.model) !== undefined)) return undefined
  return {
    texts,
    tokens: texts.reduce((sum, one) => sum + EmbeddingInput.estimateTokens(one), 0),
    key: JSON.stringify([tenant, keyId, rest.model, rest.dimensions, rest.encoding_format, headers]),
    body: (all) => JSON.stringify({ ...rest, input: all })
  }
}

// ---------------------------------------------------------------------------
// Taking apart
// ---------------------------------------------------------------------------

const isReply = Schema.is(
  Schema.Struct({
    data: Schema.Array(Schema.Struct({ index: Schema.Int })),
    usage: Schema.optionalKey(Schema.Unknown)
  })
)

const parse = (body: Uint8Array): unknown => {
  try {
    return JSON.parse(decoder.decode(body))
  } catch {
    return undefined
  }
}

/** From where to where a caller's tokens stand among those of all. */
interface Span {
  readonly from: number
  readonly to: number
  readonly of: number
}

/** A share of every whole number; shares of spans that follow each other sum up to it. */
const shareOf = (value: unknown, span: Span): unknown => {
  if (typeof value === "number" && Number.isSafeInteger(value)) {
    return Math.floor((value * span.to) / span.of) - Math.floor((value * span.from) / span.of)
  }
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, shareOf(inner, span)]))
    : value
}

/** One reply as many; `undefined` where it is not what was asked for. */
const partedBy = (
  places: ReadonlyMap<string, number>,
  { body, ...reply }: RawReply & { readonly _tag: "Whole" },
  batch: ReadonlyArray<Waiting>
): ReadonlyArray<RawReply> | undefined => {
  const json = parse(body)
  if (!isReply(json) || json.data.length !== places.size) return undefined
  const byIndex = new Map(json.data.map((one) => [one.index, one]))
  const of = batch.reduce((sum, { wanted }) => sum + wanted.tokens, 0)
  const replies: Array<RawReply> = []
  let from = 0
  for (const { wanted } of batch) {
    const data: Array<object> = []
    for (const text of wanted.texts) {
      const found = byIndex.get(places.get(text) ?? -1)
      if (found === undefined) return undefined
      data.push({ ...found, index: data.length })
    }
    const span = { from, to: from + wanted.tokens, of }
    from = span.to
    const own = { ...json, data, ...("usage" in json ? { usage: shareOf(json.usage, span) } : {}) }
    replies.push({
      ...reply,
      body: encoder.encode(JSON.stringify(own)),
      usage: () => Usage.fromReply(own),
      batched: batch.length
    })
  }
  return replies
}

/** Is it for what is in the batch, or how much, that it was refused? A part of it may pass then. */
const asksForLess = (error: LlmError.CallError): boolean =>
  EmbeddingInput.isOfItems(error) ||
  error._tag === "GuardRefused" ||
  error._tag === "LimitExceeded" ||
  error._tag === "BudgetExceeded"

// ---------------------------------------------------------------------------
// Gathering
// ---------------------------------------------------------------------------

/** A caller who waits for their reply. */
interface Waiting {
  readonly request: RawRequest
  readonly wanted: Wanted
  readonly reply: Deferred.Deferred<RawReply, LlmError.CallError>
}

/** A batch, first open and then on its way. */
interface Gathering {
  readonly key: string
  readonly waiting: Set<Waiting>
  readonly full: Deferred.Deferred<void>
  items: number
  tokens: number
  /** Absent until it has begun to wait. */
  fiber: Fiber.Fiber<void> | undefined
}

/**
 * Puts gathering before `send`. Batches live no longer than the scope.
 *
 * Fails with `InvalidSetting`; what it makes fails as `send` does for the same request.
 */
export const make = Effect.fnUntraced(function* (
  options: Options,
  send: Send
): Effect.fn.Return<Send, InvalidSetting.InvalidSetting, Scope.Scope> {
  const owner = "EmbeddingRelay.make"
  const { limits } = EmbeddingInput
  yield* InvalidSetting.check(owner, options, {
    window: InvalidSetting.judgedLater,
    maxItems: InvalidSetting.whole(1, limits.items),
    maxTokens: InvalidSetting.whole(1, limits.tokensPerRequest)
  })
  const window = yield* InvalidSetting.millis(owner, "window", options.window ?? "5 millis", 0, 60_000)
  const maxItems = options.maxItems ?? limits.items
  const maxTokens = options.maxTokens ?? limits.tokensPerRequest
  const scope = yield* Effect.scope
  const open = new Map<string, Gathering>()

  const close = (gathering: Gathering): void => {
    if (open.get(gathering.key) === gathering) open.delete(gathering.key)
    Deferred.doneUnsafe(gathering.full, Exit.void)
  }

  const gatheringFor = ({ key, texts, tokens }: Wanted): Gathering => {
    const present = open.get(key)
    if (present !== undefined) {
      if (present.items + texts.length <= maxItems && present.tokens + tokens <= maxTokens) return present
      close(present)
    }
    const gathering: Gathering = {
      key,
      waiting: new Set(),
      full: Deferred.makeUnsafe(),
      items: 0,
      tokens: 0,
      fiber: undefined
    }
    open.set(key, gathering)
    return gathering
  }

  const run = (gathering: Gathering): Effect.Effect<void> => {
    const { waiting } = gathering
    const settle = (one: Waiting, exit: Exit.Exit<RawReply, LlmError.CallError>): void => {
      waiting.delete(one)
      Deferred.doneUnsafe(one.reply, exit)
    }
    const ask = (request: RawRequest) => Effect.scoped(send(request))

    const part = (batch: ReadonlyArray<Waiting>): Effect.Effect<void> => {
      const middle = Math.ceil(batch.length / 2)
      return Effect.forEach([batch.slice(0, middle), batch.slice(middle)], deliver, {
        concurrency: 2,
        discard: true
      })
    }

    const deliver = (all: ReadonlyArray<Waiting>): Effect.Effect<void> => {
      const batch = all.filter((one) => waiting.has(one))
      const [first] = batch
      if (first === undefined) return Effect.void
      if (batch.length === 1) {
        return Effect.map(Effect.exit(ask(first.request)), (exit) => settle(first, exit))
      }
      const places = new Map<string, number>()
      for (const { wanted } of batch)
        for (const text of wanted.texts) if (!places.has(text)) places.set(text, places.size)
      const input = [...places.keys()]
      const body = first.wanted.body(input)
      return Effect.matchEffect(
        ask({
          ...first.request,
          body,
          inputTokens: input.reduce((sum, text) => sum + EmbeddingInput.estimateTokens(text), 0),
          cached: false
        }),
        {
          onFailure: (error) => {
            if (asksForLess(error)) return part(batch)
            for (const one of batch) settle(one, Exit.fail(error))
            return Effect.void
          },
          onSuccess: (reply) => {
            const replies = reply._tag === "Whole" ? partedBy(places, reply, batch) : undefined
            if (replies === undefined) return part(batch)
            batch.forEach((one, index) => {
              const own = replies[index]
              if (own !== undefined) settle(one, Exit.succeed(own))
            })
            return Effect.void
          }
        }
      )
    }

    const begun =
      window === 0 ? Effect.yieldNow : Effect.raceFirst(Effect.sleep(window), Deferred.await(gathering.full))
    return begun.pipe(
      Effect.andThen(
        Effect.suspend(() => {
          close(gathering)
          return deliver([...waiting])
        })
      ),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          close(gathering)
          if (Exit.isFailure(exit)) for (const one of waiting) settle(one, Exit.failCause(exit.cause))
        })
      )
    )
  }

  return (request) =>
    // Who has taken a place must begin the batch, or leave it: it would be waited for in vain by all that come after.
    Effect.uninterruptibleMask((restore) => {
      const wanted = wantedOf(request)
      if (wanted === undefined || wanted.texts.length > maxItems || wanted.tokens > maxTokens) {
        return restore(send(request))
      }
      const gathering = gatheringFor(wanted)
      const { waiting } = gathering
      const one: Waiting = { request, wanted, reply: Deferred.makeUnsafe() }
      const isFirst = gathering.items === 0
      waiting.add(one)
      gathering.items += wanted.texts.length
      gathering.tokens += wanted.tokens
      if (gathering.items >= maxItems || gathering.tokens >= maxTokens) close(gathering)
      const begin = isFirst
        ? Effect.map(Effect.forkIn(run(gathering), scope), (fiber) => {
            gathering.fiber = fiber
          })
        : Effect.void
      const leave = Effect.suspend(() => {
        if (!waiting.delete(one) || waiting.size > 0) return Effect.void
        close(gathering)
        return gathering.fiber === undefined ? Effect.void : Fiber.interrupt(gathering.fiber)
      })
      return Effect.andThen(
        begin,
        Effect.onInterrupt(restore(Deferred.await(one.reply)), () => leave)
      )
    })
})
