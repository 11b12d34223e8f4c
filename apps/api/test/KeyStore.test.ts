import { assert, describe, it, layer as withLayer, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Redacted from "effect/Redacted"
import type * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import type * as KeyStore from "@llm/api/KeyStore"
import * as ModelPattern from "@llm/api/ModelPattern"
import * as VirtualKey from "@llm/api/VirtualKey"
import * as KeyDatabase from "./support/KeyDatabase.ts"
import * as PostgresServer from "@llm/test-servers/PostgresServer"

const { contents, eventually, processOf } = KeyDatabase

/** A store with the team `red`. */
const started = Effect.fnUntraced(function* (options?: KeyStore.Options) {
  const store = yield* processOf(options)
  yield* store.createTeam("ann", "red", { name: "Red" })
  const create = (settings: Partial<VirtualKey.Settings> = {}) =>
    Effect.map(store.create("ann", { team: "red", ...settings }), ({ key, secret }) => ({
      id: key.id,
      secret: Redacted.value(secret)
    }))
  return { store, create }
})

/** What every database has to hold. */
const contract = <R>(
  name: string,
  live: Vitest.Tester<R>,
  database: Layer.Layer<SqlClient.SqlClient, unknown, R>
) => {
  const on = <A, E>(test: Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
    Effect.provide(Effect.scoped(test), Layer.fresh(database))

  describe(`keys in ${name}`, () => {
    live("a key is found by its secret, of which only a hash is kept", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          assert.isFalse(store.hasKeys() && store.status().cached > 0)
          const { id, secret } = yield* create({ label: "ci", models: ["gpt-6-*"], requestsPerMinute: 5 })
          assert.match(secret, /^sk-llm-[\w-]{43}$/u)
          assert.isTrue(store.hasKeys())
          const found = yield* store.find(secret)
          assert.deepInclude(found?.key, { id, label: "ci", models: ["gpt-6-*"], requestsPerMinute: 5 })
          assert.deepInclude(found?.team, { id: "red", name: "Red" })
          assert.strictEqual(yield* store.find(secret), found)
          assert.isUndefined(yield* store.find(VirtualKey.newSecret()))
          assert.isUndefined(yield* store.find("sk-proj-somethingElse"))
          assert.notInclude(yield* contents, secret)
          assert.notInclude(yield* contents, secret.slice(7, 40))
        })
      )
    )

    live("a change counts in every process", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          const other = yield* processOf({ poll: "10 millis" })
          const { id, secret } = yield* create()
          assert.isUndefined((yield* other.find(secret))?.key.requestsPerMinute)
          yield* store.update("ann", id, { requestsPerMinute: 3 })
          yield* eventually(Effect.sync(() => other.keyOf(id)?.requestsPerMinute === 3))
          yield* store.updateTeam("ann", "red", { disabled: true })
          yield* eventually(Effect.map(other.find(secret), (found) => found?.team.disabled === true))
          yield* store.revoke("ann", id)
          yield* eventually(Effect.map(other.find(secret), (found) => found?.key.revokedAt != null))
        })
      )
    )

    live("no process keeps what it read just before a change", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          const other = yield* processOf({ poll: "10 millis" })
          for (let round = 0; round < 30; round++) {
            const { id, secret } = yield* create()
            yield* Effect.all([other.find(secret), store.revoke("ann", id)], { concurrency: 2 })
            yield* eventually(Effect.sync(() => other.status().version === store.status().version))
            assert.isNotNull((yield* other.find(secret))?.key.revokedAt)
          }
        })
      )
    )

    live("a rotation leaves the old secret a while", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          const { id, secret } = yield* create()
          yield* store.find(secret)
          const next = yield* store.rotate("ann", id, Duration.hours(1))
          assert.strictEqual(next.key.id, id)
          const old = yield* store.find(secret)
          const present = yield* store.find(Redacted.value(next.secret))
          assert.strictEqual(old?.key.id, id)
          assert.isTrue((old?.validUntil ?? 0) > Date.now())
          assert.isUndefined(present?.validUntil)
          // The one before the last gets no more time by another rotation.
          yield* store.rotate("ann", id, Duration.hours(5))
          assert.strictEqual((yield* store.find(secret))?.validUntil, old?.validUntil)
          const { secrets } = yield* store.show(id)
          assert.deepStrictEqual(
            secrets.map(({ hint, validUntil }) => [hint.length, validUntil === null]),
            [
              [4, false],
              [4, false],
              [4, true]
            ]
          )
        })
      )
    )

    live("settings are changed one by one, and wrong ones not at all", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          const { id } = yield* create({ label: "ci", budget: { dollars: "12.50", window: "month" } })
          const key = yield* store.update("ann", id, { label: null, concurrency: 4 })
          assert.deepInclude(key, { concurrency: 4, budget: { dollars: "12.50", window: "month" } })
          assert.isUndefined(key.label)
          for (const wrong of [
            { requestsPerMinute: 0 },
            { budget: { window: "day" } },
            { model: "x" },
            { team: null }
          ]) {
            const error = yield* Effect.flip(store.update("ann", id, wrong))
            assert.strictEqual(error._tag, "KeyInvalid")
          }
          assert.strictEqual(
            (yield* Effect.flip(store.update("ann", id, { team: "none" })))._tag,
            "KeyUnknown"
          )
          assert.strictEqual((yield* Effect.flip(store.update("ann", "key_none", {})))._tag, "KeyUnknown")
          assert.strictEqual((yield* Effect.flip(store.createTeam("ann", "red", {})))._tag, "KeyConflict")
          yield* store.revoke("ann", id)
          assert.strictEqual(
            (yield* Effect.flip(store.update("ann", id, { label: "x" })))._tag,
            "KeyConflict"
          )
          assert.strictEqual((yield* Effect.flip(store.rotate("ann", id, Duration.zero)))._tag, "KeyConflict")
        })
      )
    )

    live("every change is in the audit log, with what was before and after", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          const { id, secret } = yield* create({ label: "ci" })
          yield* store.update("bob", id, { label: "nightly" })
          const { secret: next } = yield* store.rotate("bob", id, Duration.zero)
          yield* store.revoke("eve", id)
          yield* Effect.exit(store.update("eve", id, { label: "x" }))
          const entries = yield* store.audit({ limit: 10 })
          assert.deepStrictEqual(
            entries.map(({ action, actor, subject }) => [action, actor, subject]),
            [
              ["key.revoke", "eve", id],
              ["key.rotate", "bob", id],
              ["key.update", "bob", id],
              ["key.create", "ann", id],
              ["team.create", "ann", "red"]
            ]
          )
          const update = entries[2]
          assert.include(JSON.stringify(update?.before), '"label":"ci"')
          assert.include(JSON.stringify(update?.after), '"label":"nightly"')
          assert.isNull(entries[3]?.before)
          for (const one of [secret, Redacted.value(next)]) assert.notInclude(JSON.stringify(entries), one)
          assert.lengthOf(yield* store.audit({ subject: "red", limit: 10 }), 1)
          assert.lengthOf(yield* store.audit({ before: entries[1]?.seq, limit: 2 }), 2)
        })
      )
    )

    live("keys are listed in pages, of all or of one team", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          yield* store.createTeam("ann", "blue", {})
          const ids = yield* Effect.forEach(["red", "red", "blue", "red"], (team) =>
            Effect.map(create({ team }), ({ id }) => id)
          )
          const first = yield* store.list({ limit: 3 })
          const rest = yield* store.list({ limit: 3, after: first.at(-1)?.id })
          assert.deepStrictEqual(
            [...first, ...rest].map(({ id }) => id),
            ids.toSorted()
          )
          assert.lengthOf(yield* store.list({ team: "blue", limit: 10 }), 1)
          assert.lengthOf(yield* store.teams, 2)
        })
      )
    )

    live("the time of the last use is written behind", () =>
      on(
        Effect.gen(function* () {
          const { create, store } = yield* started()
          const { id } = yield* create()
          yield* Effect.scoped(
            Effect.gen(function* () {
              const leaving = yield* processOf()
              leaving.touch(id)
            })
          )
          assert.isNotNull((yield* store.show(id)).key.lastUsedAt)
          assert.lengthOf(yield* store.audit({ limit: 10, subject: id }), 1)
        })
      )
    )
  })
}

contract("SQLite", it.live, KeyDatabase.sqlite)

describe("keys in memory", () => {
  const test = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient | Scope.Scope>) =>
    Effect.provide(Effect.scoped(effect), KeyDatabase.sqlite)

  it.effect("are looked after every 250 ms: a revocation counts within a second", () =>
    test(
      Effect.gen(function* () {
        const { create, store } = yield* started()
        const other = yield* processOf()
        const { id, secret } = yield* create()
        assert.isNull((yield* other.find(secret))?.key.revokedAt)
        yield* store.revoke("ann", id)
        yield* TestClock.adjust("250 millis")
        assert.isNotNull((yield* other.find(secret))?.key.revokedAt)
      })
    )
  )

  it.effect("are at most `capacity`, the longest unused go first", () =>
    test(
      Effect.gen(function* () {
        const { create, store } = yield* started({ capacity: 10 })
        const made = yield* Effect.replicateEffect(create(), 30)
        for (const { secret } of made) yield* store.find(secret)
        assert.strictEqual(store.status().cached, 10)
        assert.isUndefined(store.keyOf(made[0]?.id ?? ""))
        for (const { id, secret } of made) assert.strictEqual((yield* store.find(secret))?.key.id, id)
      })
    )
  )

  it.effect.each([
    ["poll", { poll: "1 second" }],
    ["capacity", { capacity: 0 }],
    ["grace", { grace: -1 }],
    ["timeout", { timeout: 0 }]
  ] as const)("%s cannot be %j", ([setting, options]) =>
    test(
      Effect.gen(function* () {
        const error = yield* Effect.flip(processOf(options))
        assert.deepInclude(error, { _tag: "InvalidSetting", setting })
      })
    )
  )
})

describe("a pattern", () => {
  const letters = fc.array(fc.constantFrom("a", "b", ".", "*"), { maxLength: 8 }).map((all) => all.join(""))
  it("fits what the same regular expression fits", () => {
    fc.assert(
      fc.property(letters, letters, (pattern, name) => {
        const expression = pattern
          .split("*")
          .map((piece) => piece.replaceAll(".", "\\."))
          .join(".*")
        assert.strictEqual(ModelPattern.make(pattern)(name), new RegExp(`^${expression}$`, "u").test(name))
      })
    )
  })
})

PostgresServer.whereThereIsOne(() => {
  withLayer(PostgresServer.layer, { excludeTestServices: true })("with PostgreSQL", (tests) => {
    contract("PostgreSQL", tests.effect, PostgresServer.layerSchema)

    tests.effect("a key in memory is found without a question to the database, among however many", () =>
      Effect.gen(function* () {
        const { create, store } = yield* started()
        const { id, secret } = yield* create()
        yield* store.find(secret)
        const exit = Effect.runSyncExit(store.find(secret))
        assert.isTrue(Exit.isSuccess(exit) && exit.value?.key.id === id)
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(PostgresServer.layerSchema)))
    )

    tests.effect("while the database is gone, keys in memory go on, and of others nothing is said", () =>
      Effect.gen(function* () {
        const server = yield* PostgresServer.PostgresServer
        const { create, store } = yield* started({ poll: "10 millis", timeout: "1 second" })
        const strict = yield* processOf({ poll: "10 millis", timeout: "1 second", grace: 0 })
        const known = yield* create()
        const unused = yield* create()
        yield* store.find(known.secret)
        yield* strict.find(known.secret)
        yield* server.stop
        yield* eventually(Effect.sync(() => !store.status().available && !strict.status().available))
        assert.strictEqual((yield* store.find(known.secret))?.key.id, known.id)
        for (const secret of [unused.secret, VirtualKey.newSecret()]) {
          assert.strictEqual((yield* Effect.flip(store.find(secret)))._tag, "KeysUnavailable")
        }
        assert.strictEqual((yield* Effect.flip(strict.find(known.secret)))._tag, "KeysUnavailable")
        assert.strictEqual((yield* Effect.flip(store.revoke("ann", known.id)))._tag, "KeysUnavailable")
        yield* server.start
        yield* eventually(Effect.sync(() => store.status().available))
        assert.strictEqual((yield* store.find(unused.secret))?.key.id, unused.id)
        yield* store.revoke("ann", known.id)
        assert.isNotNull((yield* store.find(known.secret))?.key.revokedAt)
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(PostgresServer.layerSchema)))
    )
  })
})
