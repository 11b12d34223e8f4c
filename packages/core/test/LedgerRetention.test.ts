import { LedgerRetention, LedgerStore } from "@llm/core"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import { assert, describe, it, type Vitest } from "@effect/vitest"
import { Effect, Exit, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as PostgresServer from "@llm/test-servers/PostgresServer"
import * as LedgerRows from "./support/LedgerRows.ts"

const { hour, make: row } = LedgerRows
const start = Date.UTC(2026, 10, 30, 12)

const left = Effect.gen(function* () {
  const store = yield* LedgerStore.LedgerStore
  return (yield* Stream.runCollect(store.rows({}))).map(({ callId }) => callId)
})

/** Waits for what the round does in the database, which no test clock moves. */
const settled = (
  wanted: ReadonlyArray<string>
): Effect.Effect<void, LedgerStore.QueryError, LedgerStore.LedgerStore> =>
  Effect.flatMap(left, (found) =>
    JSON.stringify(found) === JSON.stringify(wanted)
      ? Effect.void
      : Effect.andThen(
          Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve))),
          Effect.suspend(() => settled(wanted))
        )
  )

/**
 * What a process keeps that starts then. In one that runs, a round begins where the test clock passes it, and a
 * database that answers in real time would find the clock at the end of the leap.
 */
const keptAt = (time: number, wanted: ReadonlyArray<string>) =>
  Effect.andThen(
    TestClock.setTime(time),
    Effect.provide(settled(wanted), LedgerRetention.layer({ keep: "1 day", batch: 10 }))
  )

const contract = <R>(
  { effect }: Vitest.MethodsNonLive<R>,
  store: Layer.Layer<LedgerStore.LedgerStore, unknown, R>
) => {
  effect("rows go when they are old enough, and not those of the current month", () =>
    Effect.gen(function* () {
      const { insert, report } = yield* LedgerStore.LedgerStore
      const many = Array.from({ length: 25 }, (_, index) =>
        row({ callId: `old-${index}`, endedAt: Date.UTC(2026, 9, 1) + index * hour })
      )
      yield* insert([
        ...many,
        row({ callId: "late", endedAt: Date.UTC(2026, 9, 31, 23) }),
        row({ callId: "month", endedAt: Date.UTC(2026, 10, 1) }),
        row({ callId: "today", endedAt: start })
      ])
      // Four weeks old, and a day is what is kept; but it is of this month.
      yield* keptAt(start, ["month", "today"])
      assert.strictEqual((yield* report({}))[0]?.attempts, 2)
      yield* keptAt(Date.UTC(2026, 11, 1, 6), ["today"])
      yield* keptAt(Date.UTC(2026, 11, 1, 18), [])
      assert.deepStrictEqual(yield* report({ by: ["day"] }), [])
      // A pool of connections that is made before a leap of years makes up for all of its upkeep.
    }).pipe(Effect.provide(store), (test) => Effect.andThen(TestClock.setTime(start), test))
  )
}

describe("LedgerRetention", () => {
  describe("in memory", () => {
    contract(it, LedgerStore.layerMemory())

    it.effect("a store that is away is asked again with the next round", () =>
      Effect.gen(function* () {
        let asked = 0
        const store = LedgerStore.LedgerStore.of({
          ...LedgerStore.none,
          deleteBefore: () =>
            Effect.suspend(() =>
              ++asked === 1
                ? Effect.fail(new LedgerStore.LedgerFailed({ operation: "delete", detail: "away" }))
                : Effect.succeed(0)
            )
        })
        yield* TestClock.setTime(Date.UTC(2026, 10, 21))
        yield* Effect.gen(function* () {
          assert.strictEqual(asked, 1)
          yield* TestClock.adjust("1 hour")
          assert.strictEqual(asked, 2)
        }).pipe(
          Effect.provide(
            Layer.provide(
              LedgerRetention.layer({ keep: "1 day" }),
              Layer.succeed(LedgerStore.LedgerStore, store)
            )
          )
        )
      })
    )

    it.effect.each([
      { keep: 0 },
      { keep: "1 minute" as const },
      { keep: "1 day" as const, batch: 0 },
      { keep: "1 day" as const, every: "2 days" as const }
    ])("a setting that cannot be fails at start: %o", (options) =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          Layer.build(Layer.provide(LedgerRetention.layer(options), LedgerStore.layerMemory()))
        )
        assert.isTrue(Exit.isFailure(exit))
      })
    )
  })

  describe("over SQLite", () => {
    contract(it, Layer.provide(SqlLedgerStore.layer, SqliteClient.layer({ filename: ":memory:" })))
  })
})

PostgresServer.whereThereIsOne(() => {
  it.layer(PostgresServer.layer, { timeout: "60 seconds" })("LedgerRetention over PostgreSQL", (within) =>
    contract(within, Layer.provide(SqlLedgerStore.layer, PostgresServer.layerSchema))
  )
})
