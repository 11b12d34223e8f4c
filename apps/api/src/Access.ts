/**
 * Who calls, and what the caller may do.
 *
 * **Details**
 *
 * A key comes as `Authorization: Bearer …` or as `api-key: …`. Whether it is known is the only thing that is decided
 * here; how often it may call and what it may spend is `policies`: settings of `RateLimit`, `Concurrency` and `Budget`
 * by `call.keyId` and `call.tenant`, which follow the keys as they change.
 *
 * **Gotchas**
 *
 * What looks like a key of ours is never taken for nobody, also where no key is required: who was revoked must not
 * come back as anyone.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { type Budget, type Concurrency, InvalidSetting, type RateLimit } from "@llm/core"
import { FailedAttempts } from "./FailedAttempts.ts"
import { type Found, KeyStore } from "./KeyStore.ts"
import * as ModelPattern from "./ModelPattern.ts"
import * as VirtualKey from "./VirtualKey.ts"

/** Turned away, with the answer in OpenAI's shape. */
export class Denied extends Schema.TaggedError<Denied>()("Denied", {
  status: Schema.Literals([401, 403, 429, 503]),
  code: Schema.String,
  detail: Schema.String,
  hint: Schema.String,
  /** Milliseconds until it may be tried again, where that is known. */
  retryAfter: Schema.optional(Schema.Finite)
}) {
  override get message(): string {
    return this.detail
  }
  get body() {
    const { code, detail, hint, status } = this
    const type =
      status === 503 ? "service_unavailable_error" : status === 429 ? "requests" : "invalid_request_error"
    return { error: { message: detail, type, param: null, code, hint } }
  }
  get headers(): Readonly<Record<string, string>> {
    const { retryAfter = 1000 } = this
    const wait = { "retry-after": String(Math.max(1, Math.ceil(retryAfter / 1000))) }
    if (this.status === 503) return wait
    if (this.status === 429) return { ...wait, "x-should-retry": "false" }
    return { "x-should-retry": "false", ...(this.status === 401 ? { "www-authenticate": "Bearer" } : {}) }
  }
  get response(): HttpServerResponse.HttpServerResponse {
    return HttpServerResponse.jsonUnsafe(this.body, { status: this.status, headers: this.headers })
  }
}

/** What a request asks for. */
export interface Wish {
  /** Dotted, such as `chat.create`. */
  readonly operation: string
  /** As the caller wrote it, before aliases and fallbacks. */
  readonly model: string | undefined
}

/** Who calls. */
export interface Caller {
  /** The key's name; absent where no key is required. */
  readonly keyId: string | undefined
  readonly tenant: string | undefined
  readonly scopes: ReadonlyArray<VirtualKey.Scope>
  /** Whether the caller may use a model: for the list of models. */
  readonly may: (model: string) => boolean
  /** What stands against a request; `undefined` where nothing does. */
  readonly denies: (wish: Wish) => Denied | undefined
}

/** Settings for the policies of `@llm/core`, under names that begin with `key` and `team`. */
export interface Policies {
  readonly rateLimit: RateLimit.Options
  readonly concurrency: Concurrency.Options
  readonly budgets: ReadonlyArray<Budget.Limit>
}

type Headers = Readonly<Record<string, string | undefined>>

export class Access extends Context.Service<
  Access,
  {
    /**
     * Gives the caller, or the answer that turns one away. Costs no query for a key that is in use, nor for one of
     * an address with too many failures.
     *
     * @param address where the request comes from; without it failures are not counted
     */
    readonly authenticate: (headers: Headers, address?: string) => Effect.Effect<Caller, Denied>
    /** Whom `authenticate` would give without a question to anybody; `undefined` where it has to ask, or to deny. */
    readonly known: (headers: Headers, connection?: object) => Caller | undefined
    readonly policies: Policies
  }
>()("@llm/api/Access") {}

/** Who may come in. */
export interface Options {
  /** `once-made` (unless told): from the first key on. */
  readonly required?: boolean | "once-made" | undefined
  /** How long a call may wait for its key's requests and tokens per minute; not at all unless told. */
  readonly maxWait?: Duration.Input | undefined
}

const isAbsent = (text: string | undefined): text is undefined | "" => text === undefined || text === ""

/** The key of a request; `undefined` where there is none. */
export const secretOf = (headers: Headers): string | undefined => {
  const { authorization } = headers
  if (!isAbsent(authorization)) {
    const token = /^bearer +(\S+) *$/iu.exec(authorization)?.[1]
    if (token !== undefined) return token
  }
  const key = headers["api-key"]?.trim()
  return isAbsent(key) ? undefined : key
}

const unauthorized = (detail: string, hint: string) =>
  new Denied({ status: 401, code: "invalid_api_key", detail, hint })

const missing = unauthorized(
  "You did not provide an API key.",
  "Send a key of this gateway as `Authorization: Bearer sk-llm-…` (the official clients: `apiKey`)."
)
const unknown = unauthorized(
  "Incorrect API key provided.",
  "Use a key of this gateway (sk-llm-…), not the provider's; whoever runs it makes one with `oa admin keys create`."
)

/** The key store does not answer: never a 401, which would make clients throw their keys away. */
const unavailable = new Denied({
  status: 503,
  code: "key_store_unavailable",
  detail: "The gateway cannot check API keys at the moment.",
  hint: "Try again in a second; the key itself was not judged."
})

/** Keys in use pass all the same: many may come from one address. */
const tooManyFailures = (retryAfter: number) =>
  new Denied({
    status: 429,
    code: "too_many_failed_attempts",
    detail: "Too many requests with unknown API keys came from this address.",
    hint: "Correct the key; after the time in retry-after it is looked at again.",
    retryAfter
  })

const forbidden = (code: string, detail: string, hint: string) =>
  new Denied({ status: 403, code, detail, hint })

/** What chooses its model elsewhere, as a stored prompt does, cannot be held against a list of models. */
const generates =
  /^(?:(?:chat|responses)\.(?:create|stream|compact|inputTokens)$|(?:completions|embeddings|images|audio|moderations)\.)/u

/** Longer names are no model's: names are labels and keys wherever calls are counted. */
export const longestModel = 256

const shown = (model: string): string => JSON.stringify(model.length > 80 ? `${model.slice(0, 80)}…` : model)

const callerOf = ({ key, team }: Found): Caller => {
  const scopes = key.scopes ?? ["inference"]
  const fits = ModelPattern.any(key.models)
  const may = (model: string) => model.length <= longestModel && fits(model)
  const mayOperate = ModelPattern.any(key.operations)
  const ask = `Ask whoever runs the gateway to change ${key.id}, or use another key.`
  return {
    keyId: key.id,
    tenant: team.id,
    scopes,
    may,
    denies: ({ model, operation }) => {
      if (!scopes.includes("inference")) {
        return forbidden("insufficient_scope", `The key ${key.id} is not for inference.`, ask)
      }
      if (!mayOperate(operation)) {
        return forbidden("operation_not_allowed", `The key ${key.id} may not use ${operation}.`, ask)
      }
      if (model !== undefined && !may(model)) {
        return forbidden("model_not_allowed", `The key ${key.id} may not use the model ${shown(model)}.`, ask)
      }
      if (model === undefined && key.models !== undefined && generates.test(operation)) {
        return forbidden(
          "model_not_allowed",
          `The key ${key.id} may use certain models only, and the request names none.`,
          "Name the model in the request."
        )
      }
      return undefined
    }
  }
}

/** Why a key that is known is not accepted now. */
const lapsed = ({ key, team, validUntil }: Found, now: number): Denied | undefined => {
  const anew = "Get another one from whoever runs the gateway."
  if (key.revokedAt !== null) return unauthorized(`The key ${key.id} was revoked.`, anew)
  if (validUntil !== undefined && validUntil <= now) {
    return unauthorized(`This secret of ${key.id} was replaced.`, "Use the new secret of the same key.")
  }
  if (key.expiresAt !== undefined && DateTime.toEpochMillis(key.expiresAt) <= now) {
    return unauthorized(`The key ${key.id} has expired.`, anew)
  }
  if (key.disabled === true || team.disabled === true) {
    return unauthorized(
      `The key ${key.id} is disabled.`,
      "Ask whoever runs the gateway to enable it, or its team."
    )
  }
  return undefined
}

/** Without a key, where none is required. */
export const anyone: Caller = {
  keyId: undefined,
  tenant: undefined,
  scopes: ["inference"],
  may: () => true,
  denies: () => undefined
}

const policiesOf = (store: KeyStore["Service"], maxWait: Duration.Input): Policies => {
  const keyOf = (id: string | undefined) => (isAbsent(id) ? undefined : store.keyOf(id))
  const key = ({ keyId }: { readonly keyId?: string | undefined }) => keyId ?? ""
  const windows = ["day", "month"] as const
  const within = (budget: VirtualKey.Budget | undefined, window: VirtualKey.Budget["window"]) =>
    budget?.window === window ? budget : undefined
  return {
    rateLimit: {
      name: "key",
      key,
      requestsPerMinute: ({ keyId }) => keyOf(keyId)?.requestsPerMinute,
      tokensPerMinute: ({ keyId }) => keyOf(keyId)?.tokensPerMinute,
      // Those headers speak of the provider's limits.
      follow: false,
      maxWait
    },
    concurrency: { name: "key", key, limit: ({ keyId }) => keyOf(keyId)?.concurrency, queue: 0 },
    budgets: windows.flatMap((window): ReadonlyArray<Budget.Limit> => [
      {
        name: `key ${window}`,
        window,
        per: ["keyId"],
        dollars: ({ keyId }) => within(keyOf(keyId)?.budget, window)?.dollars,
        tokens: ({ keyId }) => within(keyOf(keyId)?.budget, window)?.tokens
      },
      {
        name: `team ${window}`,
        window,
        per: ["tenant"],
        dollars: ({ tenant = "" }) => within(store.teamOf(tenant)?.budget, window)?.dollars,
        tokens: ({ tenant = "" }) => within(store.teamOf(tenant)?.budget, window)?.tokens
      }
    ])
  }
}

const owner = "Access.layer"

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  required: InvalidSetting.oneOf(true, false, "once-made"),
  maxWait: InvalidSetting.judgedLater
}

/** Fails at start with `InvalidSetting`. */
export const layer = (options: Options = {}): Layer.Layer<Access, InvalidSetting.InvalidSetting, KeyStore> =>
  Layer.effect(
    Access,
    Effect.gen(function* () {
      yield* InvalidSetting.check(owner, options, rules)
      const maxWait = yield* InvalidSetting.millis(owner, "maxWait", options.maxWait ?? 0)
      const required = options.required ?? "once-made"
      const store = yield* KeyStore
      const clock = yield* Clock.Clock
      /** A key's patterns are read once; what was found is the same object until it changes. */
      const callers = new WeakMap<Found, Caller>()

      const failures = new FailedAttempts()
      const failed = (address: string | undefined): Effect.Effect<never, Denied> => {
        const now = clock.currentTimeMillisUnsafe()
        const wait = address === undefined ? 0 : failures.waitOf(address, now)
        if (wait > 0) return Effect.fail(tooManyFailures(wait))
        if (address !== undefined) failures.add(address, now)
        return Effect.fail(unknown)
      }

      const isOpen = () => required === false || (required === "once-made" && !store.hasKeys())

      const judge = (found: Found): Caller | Denied => {
        const against = lapsed(found, clock.currentTimeMillisUnsafe())
        if (against !== undefined) return against
        let caller = callers.get(found)
        if (caller === undefined) callers.set(found, (caller = callerOf(found)))
        store.touch(found.key.id)
        return caller
      }
      const accept = (found: Found): Effect.Effect<Caller, Denied> => {
        const judged = judge(found)
        return judged instanceof Denied ? Effect.fail(judged) : Effect.succeed(judged)
      }

      return {
        known: (headers, connection) => {
          const secret = secretOf(headers)
          if (secret === undefined || !VirtualKey.isSecret(secret)) return isOpen() ? anyone : undefined
          const found = store.held(secret, connection)
          const judged = found === undefined ? undefined : judge(found)
          return judged instanceof Denied ? undefined : judged
        },
        authenticate: (headers, address) =>
          Effect.suspend(() => {
            const secret = secretOf(headers)
            if (secret === undefined || !VirtualKey.isSecret(secret)) {
              if (isOpen()) return Effect.succeed(anyone)
              return secret === undefined ? Effect.fail(missing) : failed(address)
            }
            const wait = address === undefined ? 0 : failures.waitOf(address, clock.currentTimeMillisUnsafe())
            if (wait > 0 && store.held(secret) === undefined) return Effect.fail(tooManyFailures(wait))
            return Effect.matchEffect(store.find(secret), {
              onFailure: () => Effect.fail(unavailable),
              onSuccess: (found) => (found === undefined ? failed(address) : accept(found))
            })
          }),
        policies: policiesOf(store, maxWait)
      }
    })
  )
