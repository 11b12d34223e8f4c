/**
 * Embeddings one text at a time, sent upstream together.
 *
 * **Details**
 *
 * The first `embed` opens a batch; those that come within `window` join it, from whatever fiber. Then, or as
 * soon as it is full, it goes out as one request: equal texts once, in the order of arrival. Each caller gets
 * its own vector or its own error:
 *
 * - A text that is empty, or certainly too long for OpenAI's models, fails at once and is not sent.
 * - Where a server refuses a batch for what is in it, the batch is parted until the texts at fault stand alone:
 *   by the index that the error names, else by halves, with at most `maxPartings` requests.
 * - Every other error is of the whole batch, after the retries of the pipe.
 *
 * A caller who leaves takes nobody along; when the last one has left, the request is given up.
 *
 * **Gotchas**
 *
 * - A batch runs in the context of its first caller: its spans, its `Permit.Priority`. Only the tenant divides
 *   batches.
 * - The policies see one call for each batch, not for each text.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { EmbeddingBatcher, OpenAi } from "@llm/openai"
 * import { Effect, Layer } from "effect"
 *
 * const Batcher = EmbeddingBatcher.layer({ model: "text-embedding-3-small" }).pipe(
 *   Layer.provide(OpenAi.layerConfig),
 *   Layer.provide(Resilience.layerDefault)
 * )
 *
 * const program = Effect.gen(function* () {
 *   const { embed } = yield* EmbeddingBatcher.EmbeddingBatcher
 *   return yield* Effect.forEach(["one", "two", "three"], (text) => embed(text), { concurrency: "unbounded" })
 * })
 *
 * export const runnable = Effect.provide(program, Batcher)
 * ```
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import * as InvalidSetting from "@llm/core/InvalidSetting"
import type * as LlmError from "@llm/core/LlmError"
import * as SemanticCache from "@llm/core/SemanticCache"
import type * as Embeddings from "./Embeddings.ts"
import * as EmbeddingInput from "./internal/embeddingInput.ts"
import { OpenAi } from "./OpenAi.ts"

/** Which vectors, for both Layers. */
export interface ModelOptions {
  readonly model: string
  /** Numbers of a vector; as many as the model has unless told. */
  readonly dimensions?: number | undefined
}

/** How texts are gathered. */
export interface Options extends ModelOptions {
  /** How long a batch waits for more texts; 5 milliseconds unless told. */
  readonly window?: Duration.Input | undefined
  /** The most texts of a batch; 2,048 unless told, which is also the most that OpenAI takes. */
  readonly maxItems?: number | undefined
  /** The most tokens of a batch, estimated; 300,000 unless told, which is also the most that OpenAI takes. */
  readonly maxTokens?: number | undefined
}

/** What is no part of the text. */
export interface CallOptions {
  /** On whose account the text is embedded; batches are of one tenant. */
  readonly tenant?: string | undefined
}

/** Embeds single texts. */
export class EmbeddingBatcher extends Context.Service<
  EmbeddingBatcher,
  {
    /**
     * The vector of one text, the caller's own copy.
     *
     * Fails with `InvalidRequest` where the text cannot be embedded, else as `embeddings.create` does.
     */
    readonly embed: (text: string, options?: CallOptions) => Effect.Effect<Float32Array, LlmError.CallError>
  }
>()("@llm/openai/EmbeddingBatcher") {}

/** The most requests that look for the texts at fault in one batch: for one in 2,048 it takes 22. */
const maxPartings = 64

const modelRules = {
  model: { allowed: "a model's name", accepts: (value) => typeof value === "string" && value !== "" },
  dimensions: InvalidSetting.whole(1, 100_000)
} satisfies Record<string, InvalidSetting.Rule>

// ---------------------------------------------------------------------------
// Gathering
// ---------------------------------------------------------------------------

/** One `embed` that waits for its vector. */
interface Wanted extends Request.Request<Float32Array, LlmError.CallError> {
  readonly text: string
  readonly tenant: string | undefined
  readonly ticket: Ticket
}
const Wanted = Request.of<Wanted>()

type Entry = Request.Entry<Wanted>

/** Where a caller waits: in a batch that is open, then in one that is on its way. */
interface Ticket {
  gathering: Gathering | undefined
  flight: Flight | undefined
}

/** The texts of a batch that is still open, and how often each is wanted. */
class Gathering {
  readonly tenant: string | undefined
  readonly wanted = new Map<string, number>()
  tokens = 0

  constructor(tenant: string | undefined) {
    this.tenant = tenant
  }

  add(text: string): void {
    const times = this.wanted.get(text) ?? 0
    if (times === 0) this.tokens += EmbeddingInput.estimateTokens(text)
    this.wanted.set(text, times + 1)
  }

  remove(text: string): void {
    const times = this.wanted.get(text) ?? 0
    if (times > 1) return void this.wanted.set(text, times - 1)
    if (this.wanted.delete(text)) this.tokens -= EmbeddingInput.estimateTokens(text)
  }
}

/** A batch on its way. */
interface Flight {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly waiting: Set<Ticket>
  partings: number
}

/** Gathers what is wanted at the same time. Needs `OpenAi`; fails with `InvalidSetting`. */
export const layer = (
  options: Options
): Layer.Layer<EmbeddingBatcher, InvalidSetting.InvalidSetting, OpenAi> =>
  Layer.effect(
    EmbeddingBatcher,
    Effect.gen(function* () {
      const owner = "EmbeddingBatcher.layer"
      const { limits } = EmbeddingInput
      yield* InvalidSetting.check(owner, options, {
        ...modelRules,
        window: InvalidSetting.judgedLater,
        maxItems: InvalidSetting.whole(1, limits.items),
        maxTokens: InvalidSetting.whole(1, limits.tokensPerRequest)
      })
      const window = yield* InvalidSetting.millis(owner, "window", options.window ?? "5 millis", 0, 60_000)
      const maxItems = options.maxItems ?? limits.items
      const maxTokens = options.maxTokens ?? limits.tokensPerRequest
      const create = createWith(yield* OpenAi, options)

      /** By tenant. */
      const open = new Map<string | undefined, Gathering>()

      const close = (gathering: Gathering) => {
        if (open.get(gathering.tenant) === gathering) open.delete(gathering.tenant)
      }

      const fits = (gathering: Gathering, text: string) =>
        gathering.wanted.has(text) ||
        (gathering.wanted.size < maxItems &&
          gathering.tokens + EmbeddingInput.estimateTokens(text) <= maxTokens)

      const join = ({ tenant, text }: Wanted): Gathering => {
        let gathering = open.get(tenant)
        if (gathering === undefined || !fits(gathering, text)) {
          gathering = new Gathering(tenant)
          open.set(tenant, gathering)
        }
        gathering.add(text)
        return gathering
      }

      const isFull = (gathering: Gathering | undefined) =>
        gathering !== undefined && (gathering.wanted.size >= maxItems || gathering.tokens >= maxTokens)

      const resolver = RequestResolver.makeWith<Wanted>({
        // Asked again when a caller leaves: what it joined is written on its ticket.
        batchKey: ({ request }) => (request.ticket.gathering ??= join(request)),
        delay: window === 0 ? Effect.yieldNow : Effect.sleep(window),
        // All of them are of one batch.
        collectWhile: ([first]) => !isFull(first?.request.ticket.gathering),
        runAll: (entries) =>
          Effect.withFiber((fiber) => {
            const flight: Flight = { fiber, waiting: new Set(), partings: 0 }
            const byText = new Map<string, Array<Entry>>()
            for (const entry of entries) {
              const { text, ticket } = entry.request
              if (ticket.gathering !== undefined) close(ticket.gathering)
              ticket.flight = flight
              flight.waiting.add(ticket)
              const others = byText.get(text)
              if (others === undefined) byText.set(text, [entry])
              else others.push(entry)
            }
            return send([...byText], flight)
          })
      })

      const send = (batch: ReadonlyArray<Batched>, flight: Flight): Effect.Effect<void> =>
        Effect.matchEffect(
          create(
            batch.map(([text]) => text),
            batch[0]?.[1][0]?.request.tenant
          ),
          {
            onSuccess: ({ vectors }) => {
              batch.forEach(([, entries], index) => {
                const vector = vectors[index]
                complete(
                  entries,
                  // Who changes their vector changes nobody else's.
                  (nth) =>
                    vector === undefined ? missing : Exit.succeed(nth === 0 ? vector : vector.slice()),
                  flight
                )
              })
              return Effect.void
            },
            onFailure: (error) => {
              const parts = partsOf(batch, error)
              if (parts.length < 2 || flight.partings + parts.length > maxPartings) {
                for (const [, entries] of batch) complete(entries, () => Exit.fail(error), flight)
                return Effect.void
              }
              flight.partings += parts.length
              return Effect.forEach(parts, (part) => send(part, flight), { concurrency: 2, discard: true })
            }
          }
        )

      const leave = ({ text, ticket }: Wanted): Effect.Effect<void> =>
        Effect.suspend(() => {
          const { flight, gathering } = ticket
          if (flight !== undefined) {
            return flight.waiting.delete(ticket) && flight.waiting.size === 0
              ? Fiber.interrupt(flight.fiber)
              : Effect.void
          }
          gathering?.remove(text)
          if (gathering?.wanted.size === 0) close(gathering)
          return Effect.void
        })

      return EmbeddingBatcher.of({
        embed: (text, call) =>
          Effect.suspend(() => {
            const tenant = call?.tenant
            // Fails here, alone: `create` sends nothing of the kind.
            if (EmbeddingInput.problemOf(text, options.model) !== undefined)
              return alone(create([text], tenant))
            const wanted = Wanted({ text, tenant, ticket: { gathering: undefined, flight: undefined } })
            return Effect.onInterrupt(Effect.request(wanted, resolver), () => leave(wanted))
          })
      })
    })
  )

/** A text of a batch, and those who want it. */
type Batched = readonly [text: string, entries: ReadonlyArray<Entry>]

const complete = (
  entries: ReadonlyArray<Entry>,
  exit: (nth: number) => Exit.Exit<Float32Array, LlmError.CallError>,
  flight: Flight
): void =>
  entries.forEach((entry, nth) => {
    flight.waiting.delete(entry.request.ticket)
    entry.completeUnsafe(exit(nth))
  })

/** Which text the error names. */
const indexIn = (error: LlmError.CallError): number | undefined => {
  if (error._tag !== "InvalidRequest") return undefined
  const match = /\binput\[(\d+)\]/u.exec(`${error.param ?? ""} ${error.detail ?? ""}`)
  return match === null ? undefined : Number(match[1])
}

/** Smaller batches that keep apart what is at fault; none where parting does not help. */
const partsOf = (
  batch: ReadonlyArray<Batched>,
  error: LlmError.CallError
): ReadonlyArray<ReadonlyArray<Batched>> => {
  if (batch.length < 2 || !EmbeddingInput.isOfItems(error)) return []
  const index = indexIn(error)
  const named = index === undefined ? undefined : batch[index]
  // A server may be wrong about the index: the text is refused only when it has been refused alone.
  if (named !== undefined) return [[named], batch.filter((batched) => batched !== named)]
  const middle = Math.ceil(batch.length / 2)
  return [batch.slice(0, middle), batch.slice(middle)]
}

/** Sends each text by itself, at once. Needs `OpenAi`; fails with `InvalidSetting`. */
export const layerNone = (
  options: ModelOptions
): Layer.Layer<EmbeddingBatcher, InvalidSetting.InvalidSetting, OpenAi> =>
  Layer.effect(
    EmbeddingBatcher,
    Effect.gen(function* () {
      yield* InvalidSetting.check("EmbeddingBatcher.layerNone", options, modelRules)
      const create = createWith(yield* OpenAi, options)
      return EmbeddingBatcher.of({ embed: (text, call) => alone(create([text], call?.tenant)) })
    })
  )

const createWith =
  (openai: OpenAi["Service"], { dimensions, model }: ModelOptions) =>
  (input: ReadonlyArray<string>, tenant: string | undefined) =>
    openai.embeddings.create(
      { model, input, ...(dimensions === undefined ? {} : { dimensions }) },
      { tenant }
    )

const alone = (
  reply: Effect.Effect<Embeddings.Embeddings, LlmError.CallError>
): Effect.Effect<Float32Array, LlmError.CallError> =>
  Effect.flatMap(reply, ({ vectors: [vector] }) => (vector === undefined ? missing : Effect.succeed(vector)))

/** `embeddings.create` gives as many vectors as it was given texts. */
const missing = Exit.die(new Error("a text has no vector"))

// ---------------------------------------------------------------------------
// For the semantic cache
// ---------------------------------------------------------------------------

/**
 * `SemanticCache` over this batcher: puts it before the `ResponseCache` that is provided to it.
 *
 * Its batcher needs an `OpenAi` of its own, below the cache; questions are embedded on nobody's account.
 */
export const layerSemanticCache = (
  options?: Omit<SemanticCache.Options, "embed">
): Layer.Layer<never, InvalidSetting.InvalidSetting, EmbeddingBatcher> =>
  Layer.unwrap(
    Effect.map(EmbeddingBatcher, ({ embed }) =>
      SemanticCache.layer({ ...options, embed: (text) => Effect.map(embed(text), (vector) => [...vector]) })
    )
  )
