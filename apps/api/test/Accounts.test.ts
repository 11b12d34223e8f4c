import { assert, describe, it } from "@effect/vitest"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { LedgerStore, UsageLedger } from "@llm/core"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import * as Accounts from "@llm/api/Accounts"
import * as ConfigFile from "@llm/api/ConfigFile"

const row = (callId: string, endedAt: number): LedgerStore.Row => ({
  callId,
  number: 1,
  tenant: "red",
  keyId: "",
  provider: "openai",
  deployment: "default",
  operation: "chat.create",
  model: "gpt-6-luna",
  requestId: "",
  stream: false,
  hedge: false,
  attempts: 1,
  startedAt: endedAt,
  answeredAt: endedAt,
  endedAt,
  outcome: "ok",
  executed: "yes",
  tokens: {
    input: 1,
    cachedInput: 0,
    cacheWrite: 0,
    audioInput: 0,
    embedding: 0,
    output: 1,
    reasoning: 0,
    audioOutput: 0,
    unattributed: 0
  },
  toolCalls: 0,
  serviceTier: null,
  audioMillis: 0,
  exact: true,
  cost: "unpriced"
})

describe("ledger.keep", () => {
  it.live("deletes what is older, and without it everything stays", () =>
    Effect.gen(function* () {
      const folder = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
      const now = Date.now()
      yield* Effect.flatMap(LedgerStore.LedgerStore, ({ insert }) =>
        insert([row("old", now - 91 * 86_400_000), row("young", now)])
      ).pipe(
        Effect.provide(
          SqlLedgerStore.layer.pipe(Layer.provide(SqliteClient.layer({ filename: `${folder}/llm.db` })))
        )
      )
      const kept = (text: string, wanted: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const file = yield* ConfigFile.parse(text, "llm.config.yaml")
          const ledger = UsageLedger.UsageLedger.pipe(
            Effect.flatMap((service) => Stream.runCollect(service.rows({}))),
            Effect.map((rows) => rows.map(({ callId }) => callId)),
            Effect.repeat({ until: (found) => found.length <= wanted.length })
          )
          assert.deepStrictEqual(yield* Effect.provide(ledger, Accounts.layer(file, folder)), wanted)
        })
      yield* kept("", ["old", "young"])
      yield* kept("ledger: { keep: 90 days }", ["young"])
    }).pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer))
  )

  it.effect("of less than an hour is a mistake, with its place", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(ConfigFile.parse("ledger:\n  keep: 30 minutes", "llm.config.yaml"))
      assert.strictEqual(
        error.message,
        'llm.config.yaml:2:9: ledger.keep: expected 1 hour or more, such as "90 days"'
      )
    })
  )
})

describe("budgets", () => {
  it.effect("may roll, and say what a window can be", () =>
    Effect.gen(function* () {
      const parse = (window: string) =>
        ConfigFile.parse(`budgets: [{ name: a, tokens: 1, window: ${window} }]`, "llm.config.yaml")
      const { budgets } = yield* parse("{ rolling: 24 hours }")
      assert.deepStrictEqual(budgets?.[0]?.window, { rolling: Duration.hours(24) })
      const wrong = (window: string) => Effect.map(Effect.flip(parse(window)), ({ message }) => message)
      assert.include(
        yield* wrong("{ rolling: 10 millis }"),
        "budgets[0].window.rolling: expected 1 second to 366 days"
      )
      assert.include(yield* wrong("week"), '"minute" | "hour" | "day" | "month" | "total"')
    })
  )
})
