import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import { Budget, Call, Concurrency, RateLimit } from "@llm/core"
import * as Access from "@llm/api/Access"
import * as KeyStore from "@llm/api/KeyStore"
import * as VirtualKey from "@llm/api/VirtualKey"
import * as KeyDatabase from "./support/KeyDatabase.ts"

const run = <A, E>(test: Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
  Effect.provide(Effect.scoped(test), KeyDatabase.sqlite)

const gate = (store: KeyStore.KeyStore["Service"], options?: Access.Options) =>
  Layer.build(Layer.provide(Access.layer(options), Layer.succeed(KeyStore.KeyStore, store))).pipe(
    Effect.map((context) => agreeing(Context.get(context, Access.Access)))
  )

/** Whoever is known at once is whoever authentication gives, and nobody that it denies. */
const agreeing = (
  access: Access.Access["Service"],
  // All come over one connection, which remembers the last secret.
  connection = {}
): Access.Access["Service"] => ({
  ...access,
  authenticate: (headers, address) =>
    Effect.suspend(() => {
      const known = access.known(headers, connection)
      assert.deepStrictEqual(known, access.known(headers))
      return Effect.onExit(access.authenticate(headers, address), (exit) =>
        Effect.sync(() => {
          if (known !== undefined) assert.deepStrictEqual(exit, Exit.succeed(known))
        })
      )
    })
})

/** A gate in front of a store with the team `red`. */
const started = Effect.fnUntraced(function* (options?: Access.Options) {
  const store = yield* KeyDatabase.processOf()
  yield* store.createTeam("ann", "red", {})
  const access = yield* gate(store, options)
  const create = (settings: Partial<VirtualKey.Settings> = {}) =>
    Effect.map(store.create("ann", { team: "red", ...settings }), ({ key, secret }) => ({
      id: key.id,
      secret: Redacted.value(secret)
    }))
  return { store, access, create }
})

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` })

/** `status code` of an answer. */
const denial = (effect: Effect.Effect<unknown, Access.Denied>) =>
  Effect.map(Effect.flip(effect), ({ code, status }) => `${status} ${code}`)

const chat = { operation: "chat.create", model: "gpt-6-luna" }

describe("a caller", () => {
  it.effect("is known by a key in either header, with its team as the tenant", () =>
    run(
      Effect.gen(function* () {
        const { access, create } = yield* started()
        const { id, secret } = yield* create()
        const spellings = [
          bearer(secret),
          { authorization: `bearer  ${secret} ` },
          { "api-key": secret },
          { authorization: "Basic abc", "api-key": secret }
        ]
        for (const headers of spellings) {
          const caller = yield* access.authenticate(headers)
          assert.deepInclude(caller, { keyId: id, tenant: "red" })
          assert.strictEqual(access.known(headers), caller)
        }
      })
    )
  )

  it.effect("without a key of ours is refused, in OpenAI's shape", () =>
    run(
      Effect.gen(function* () {
        const { access, create } = yield* started()
        const { secret } = yield* create()
        const wrong = [
          {},
          { authorization: "" },
          { authorization: "Bearer" },
          bearer("sk-proj-other"),
          bearer(VirtualKey.newSecret()),
          bearer(`${secret}x`),
          bearer(secret.toUpperCase()),
          { authorization: secret }
        ]
        for (const headers of wrong) {
          assert.strictEqual(yield* denial(access.authenticate(headers)), "401 invalid_api_key")
        }
        const denied = yield* Effect.flip(access.authenticate({}))
        assert.deepInclude(denied.body.error, {
          message: "You did not provide an API key.",
          type: "invalid_request_error",
          param: null,
          code: "invalid_api_key"
        })
        assert.strictEqual(denied.response.status, 401)
      })
    )
  )

  it.effect("is anyone where no key is required, but never with a key that is none of ours any more", () =>
    run(
      Effect.gen(function* () {
        const { access, create, store } = yield* started()
        const open = yield* gate(store, { required: false })
        const closed = yield* gate(store, { required: true })
        const plain = bearer("any")
        assert.strictEqual(yield* access.authenticate(plain), Access.anyone)
        assert.strictEqual(yield* denial(closed.authenticate(plain)), "401 invalid_api_key")
        const { id, secret } = yield* create()
        assert.strictEqual(yield* denial(access.authenticate(plain)), "401 invalid_api_key")
        assert.strictEqual(yield* open.authenticate(plain), Access.anyone)
        assert.strictEqual((yield* open.authenticate(bearer(secret))).keyId, id)
        yield* store.revoke("ann", id)
        assert.strictEqual(yield* denial(open.authenticate(bearer(secret))), "401 invalid_api_key")
        assert.strictEqual(yield* denial(access.authenticate(plain)), "401 invalid_api_key")
      })
    )
  )

  it.effect(
    "is refused once the key is revoked, disabled, expired or replaced, and let in again where that ends",
    () =>
      run(
        Effect.gen(function* () {
          yield* TestClock.setTime(Date.UTC(2026, 10, 21))
          const { access, create, store } = yield* started()
          const { id, secret } = yield* create({
            expiresAt: DateTime.makeUnsafe(Date.UTC(2026, 10, 21) + 120_000)
          })
          const message = Effect.match(access.authenticate(bearer(secret)), {
            onFailure: ({ detail, status }) => `${status} ${detail}`,
            onSuccess: ({ keyId }) => keyId
          })
          assert.strictEqual(yield* message, id)
          yield* store.update("ann", id, { disabled: true })
          assert.strictEqual(yield* message, `401 The key ${id} is disabled.`)
          yield* store.update("ann", id, { disabled: null })
          assert.strictEqual(yield* message, id)
          yield* store.updateTeam("ann", "red", { disabled: true })
          assert.strictEqual(yield* message, `401 The key ${id} is disabled.`)
          yield* store.updateTeam("ann", "red", { disabled: false })

          const next = bearer(Redacted.value((yield* store.rotate("ann", id, Duration.minutes(1))).secret))
          assert.strictEqual(yield* message, id)
          assert.strictEqual((yield* access.authenticate(next)).keyId, id)
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(yield* message, `401 This secret of ${id} was replaced.`)
          assert.strictEqual((yield* access.authenticate(next)).keyId, id)

          yield* TestClock.adjust("1 minute")
          assert.strictEqual(yield* denial(access.authenticate(next)), "401 invalid_api_key")
          yield* store.update("ann", id, { expiresAt: null })
          assert.strictEqual((yield* access.authenticate(next)).keyId, id)
          yield* store.revoke("ann", id)
          assert.strictEqual(yield* denial(access.authenticate(next)), "401 invalid_api_key")
        })
      )
  )

  it.effect("may use the models, operations and scopes of the key", () =>
    run(
      Effect.gen(function* () {
        const { access, create } = yield* started()
        const callerWith = (settings: Partial<VirtualKey.Settings>) =>
          Effect.flatMap(create(settings), ({ secret }) => access.authenticate(bearer(secret)))
        const table: ReadonlyArray<readonly [Partial<VirtualKey.Settings>, Access.Wish, string | undefined]> =
          [
            [{}, chat, undefined],
            [{}, { operation: "files.list", model: undefined }, undefined],
            [{ models: ["gpt-6-*"] }, chat, undefined],
            [{ models: ["gpt-6-sol", "o*"] }, chat, "model_not_allowed"],
            [{ models: [] }, chat, "model_not_allowed"],
            [{ models: ["gpt-6-*"] }, { ...chat, model: `gpt-6-${"x".repeat(400)}` }, "model_not_allowed"],
            [
              { models: ["gpt-6-*"] },
              { operation: "responses.create", model: undefined },
              "model_not_allowed"
            ],
            [{ models: ["gpt-6-*"] }, { operation: "files.list", model: undefined }, undefined],
            [{ operations: ["chat.*"] }, chat, undefined],
            [
              { operations: ["chat.*"] },
              { ...chat, operation: "embeddings.create" },
              "operation_not_allowed"
            ],
            [{ scopes: ["read-only"] }, chat, "insufficient_scope"],
            [{ scopes: ["admin"] }, chat, "insufficient_scope"],
            [{ scopes: ["admin", "inference"] }, chat, undefined]
          ]
        for (const [settings, wish, code] of table) {
          const denied = (yield* callerWith(settings)).denies(wish)
          assert.strictEqual(denied?.code, code, JSON.stringify([settings, wish]))
          assert.strictEqual(denied?.status, code === undefined ? undefined : 403)
        }
        const caller = yield* callerWith({ models: ["gpt-6-*"] })
        assert.isTrue(caller.may("gpt-6-luna"))
        assert.isFalse(caller.may("gpt-4o"))
      })
    )
  )

  it.effect("is told 503 and never 401 while the keys cannot be read", () =>
    run(
      Effect.gen(function* () {
        const { store } = yield* started()
        const access = yield* gate({
          ...store,
          find: () => Effect.fail(new KeyStore.KeysUnavailable({ cause: new Error("secret place") }))
        })
        const denied = yield* Effect.flip(access.authenticate(bearer(VirtualKey.newSecret())))
        assert.strictEqual(denied.status, 503)
        assert.strictEqual(denied.headers["retry-after"], "1")
        assert.notInclude(JSON.stringify(denied.body), "secret place")
      })
    )
  )
})

describe("a key's limits", () => {
  const call = Call.make({
    provider: "openai",
    operation: "chat.create",
    model: "gpt-6-luna",
    inputTokens: 100,
    maxOutputTokens: 100
  })

  it.effect("are kept by the policies of the core, and follow the key", () =>
    run(
      Effect.gen(function* () {
        const { access, create, store } = yield* started()
        const small = yield* create({
          requestsPerMinute: 2,
          tokensPerMinute: 1000,
          concurrency: 1,
          budget: { tokens: 500, window: "day" }
        })
        const free = yield* create()
        for (const { secret } of [small, free]) yield* access.authenticate(bearer(secret))
        const { budgets, concurrency, rateLimit } = access.policies
        const of = (keyId: string | undefined): Call.Call => ({ ...call, keyId, tenant: "red" })
        const answer = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.match(effect, { onFailure: ({ _tag }) => _tag, onSuccess: () => "ok" })

        yield* Effect.gen(function* () {
          const limits = yield* RateLimit.RateLimit
          const places = yield* Concurrency.Concurrency
          const money = yield* Budget.Budget
          const rate = (id: string | undefined) => answer(limits.admit(of(id), 0))
          const place = (id: string | undefined) => answer(places.admit(of(id), 0))
          const reserve = (id: string | undefined) => answer(money.reserve(of(id), 0))

          assert.strictEqual(yield* rate(small.id), "ok")
          assert.strictEqual(yield* rate(small.id), "ok")
          assert.strictEqual(yield* rate(small.id), "LimitExceeded")
          assert.strictEqual(yield* place(small.id), "ok")
          assert.strictEqual(yield* place(small.id), "QueueFull")
          assert.strictEqual(yield* reserve(small.id), "ok")
          assert.strictEqual(yield* reserve(small.id), "ok")
          assert.strictEqual(yield* reserve(small.id), "BudgetExceeded")
          for (const id of [free.id, undefined]) {
            for (const ask of [rate, place, reserve]) {
              for (let times = 0; times < 5; times++) assert.strictEqual(yield* ask(id), "ok")
            }
          }

          yield* store.update("ann", small.id, { concurrency: 2, budget: { tokens: 700, window: "day" } })
          assert.strictEqual(yield* place(small.id), "ok")
          assert.strictEqual(yield* reserve(small.id), "ok")
          yield* store.updateTeam("ann", "red", { budget: { tokens: 100, window: "month" } })
          assert.strictEqual(yield* reserve(free.id), "BudgetExceeded")
        }).pipe(
          Effect.scoped,
          Effect.provide([
            RateLimit.layer(rateLimit),
            Concurrency.layer(concurrency),
            Budget.layer({ budgets })
          ])
        )
      })
    )
  )
})

describe("a secret", () => {
  it.effect("is in no denial", () =>
    run(
      Effect.gen(function* () {
        const { access, create, store } = yield* started()
        const { id, secret } = yield* create({ models: [], scopes: ["read-only"] })
        const caller = yield* access.authenticate(bearer(secret))
        const told = [caller.denies(chat)]
        yield* store.revoke("ann", id)
        told.push(yield* Effect.flip(access.authenticate(bearer(secret))))
        const other = VirtualKey.newSecret()
        told.push(yield* Effect.flip(access.authenticate(bearer(other))))
        const text = told.map((one) => `${JSON.stringify(one?.body)} ${String(one)} ${one?.stack}`).join("\n")
        for (const one of [secret, other]) assert.notInclude(text, one.slice(7))
        const exit = yield* Effect.exit(access.authenticate(bearer(other)))
        assert.isTrue(Exit.isFailure(exit))
      })
    )
  )
})
