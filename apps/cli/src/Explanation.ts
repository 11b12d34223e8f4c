/**
 * What a gateway tells of one call: what it tried, what it waited for, and what that cost.
 *
 * The shape is the gateway's `GET /v1/llm/explain/{id}`, read by what this version shows of it.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { LlmError } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { NotExplained, UsageError } from "./Failure.ts"

// ---------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------

const maybe = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

const Text = maybe(Schema.String)
const Count = maybe(Schema.Finite)

const Failed = Schema.Struct({ error: Schema.String, message: Schema.String })

const Usage = Schema.Struct({
  inputTokens: Schema.Finite,
  outputTokens: Schema.Finite,
  cachedTokens: Count,
  reasoningTokens: Count
})

/** Times are milliseconds since the call began. */
const Attempt = Schema.Struct({
  number: Schema.Finite,
  deployment: Schema.String,
  model: Text,
  hedge: maybe(Schema.Boolean),
  startedAt: Schema.Finite,
  answeredAt: Count,
  endedAt: Count,
  failure: maybe(Failed),
  interrupted: maybe(Schema.Boolean),
  executed: Text,
  usage: maybe(Usage),
  requestId: Text
})
export type Attempt = typeof Attempt.Type

const Wait = Schema.Struct({
  at: Schema.Finite,
  milliseconds: Schema.Finite,
  because: Schema.String,
  after: maybe(Failed)
})
export type Wait = typeof Wait.Type

/** What is left of a limit; `closedUntil` is milliseconds since the epoch. */
const Level = Schema.Struct({ limit: Schema.Finite, remaining: Schema.Finite, closedUntil: Count })
export type Level = typeof Level.Type

const Limits = Schema.Struct({
  concurrency: maybe(Schema.Struct({ limit: Count, inFlight: Schema.Finite, waiting: Schema.Finite })),
  limits: Schema.Array(
    Schema.Struct({ name: Schema.String, requests: maybe(Level), tokens: maybe(Level), waiting: Count })
  )
})

export const Explanation = Schema.Struct({
  id: Schema.String,
  operation: Schema.String,
  model: Text,
  tenant: Text,
  attempts: Schema.Array(Attempt),
  waits: Schema.Array(Wait),
  /** Absent while the call runs, and where it needed no exchange. */
  milliseconds: Count,
  status: Count,
  cache: Text,
  cacheScope: maybe(
    Schema.Struct({ tenant: Text, operation: Text, model: Text, ignored: maybe(Schema.Array(Schema.String)) })
  ),
  /** Dollars, as a decimal. */
  cost: Text,
  price: maybe(
    Schema.Struct({
      model: Schema.String,
      source: Text,
      from: Text,
      dollarsPerMillion: Schema.Record(Schema.String, Schema.Finite)
    })
  ),
  limits: maybe(Limits),
  usage: maybe(Usage),
  failure: maybe(Failed)
})
export type Explanation = typeof Explanation.Type

/** An explanation, and the same as it came. */
export interface Told {
  readonly explanation: Explanation
  readonly json: unknown
}

/** Whether nothing will be added. */
export const isComplete = ({ attempts, milliseconds, status }: Explanation): boolean =>
  typeof milliseconds === "number" || (typeof status === "number" && attempts.length === 0)

// ---------------------------------------------------------------------------
// Reading
// ---------------------------------------------------------------------------

const isId = (id: string): boolean => /^[\w-]{1,128}$/u.test(id)

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Unknown))
const decodeExplanation = Schema.decodeUnknownEffect(Explanation)

/** It is in the gateway's memory: who takes longer has none. */
const patience = Duration.seconds(10)

/** Between looks at a call whose end has not been noted yet: a stream's comes a moment after its last byte. */
const pauses = [10, 20, 40, 80, 160, 320, 640]

const strange = (host: string): NotExplained =>
  new NotExplained({
    message: `${host} gives no explanation that can be read`,
    hint: "point --base-url or OPENAI_BASE_URL at a gateway of this version; to ask without: oa ask"
  })

const unknownId = (id: string, host: string): NotExplained =>
  new NotExplained({
    message: `${host} knows nothing of the call ${id}`,
    hint: "a gateway tells its latest calls that were sent with x-llm-explain: true, and only to the key that sent them"
  })

const look = Effect.fnUntraced(function* (id: string, host: string) {
  const openai = yield* OpenAi.OpenAi
  const now = yield* Clock.currentTimeMillis
  const reply = yield* openai
    .raw({
      operation: "llm.explain",
      method: "get",
      path: `/llm/explain/${id}`,
      stream: false,
      replaySafe: true,
      deadline: now + Duration.toMillis(patience)
    })
    .pipe(
      Effect.scoped,
      Effect.catchTags({
        NotFound: () => Effect.fail(unknownId(id, host)),
        MalformedResponse: () => Effect.fail(strange(host))
      })
    )
  const text = reply._tag === "Whole" ? new TextDecoder().decode(reply.body) : ""
  return yield* decode(text).pipe(
    Effect.flatMap((json) =>
      Effect.map(decodeExplanation(json), (explanation): Told => ({ explanation, json }))
    ),
    Effect.mapError(() => strange(host))
  )
})

/**
 * Asks for the explanation of a call; one that is not complete is asked for again, for about a second.
 *
 * Fails with `NotExplained` where the server knows nothing of the call, or nothing of explanations.
 *
 * @param id from the header `x-llm-explain-id`
 * @param host the server's name, for the errors
 */
export const find = Effect.fnUntraced(function* (
  id: string,
  host: string
): Effect.fn.Return<Told, LlmError.CallError | NotExplained | UsageError, OpenAi.OpenAi> {
  if (!isId(id)) {
    return yield* new UsageError({
      message: `${JSON.stringify(id)} is no id of a call`,
      hint: "it is in the header x-llm-explain-id of the reply"
    })
  }
  let told = yield* look(id, host)
  for (const pause of pauses) {
    if (isComplete(told.explanation)) break
    yield* Effect.sleep(pause)
    told = yield* look(id, host)
  }
  return told
})
