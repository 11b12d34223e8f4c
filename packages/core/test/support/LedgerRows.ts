import type { LedgerStore } from "@llm/core"
import * as fc from "fast-check"
import * as Totals from "../../src/internal/ledgerTotals.ts"

export const hour = 3_600_000

/** Rows with something in every field; a row's content follows from what is given. */
export const make = (given: Partial<LedgerStore.Row> = {}): LedgerStore.Row => ({
  callId: "call-1",
  number: 1,
  tenant: "acme",
  keyId: "key-1",
  provider: "openai",
  deployment: "default",
  operation: "chat.create",
  model: "gpt-6-luna",
  requestId: "req_1",
  stream: false,
  hedge: false,
  attempts: 1,
  startedAt: 1000,
  answeredAt: 1500,
  endedAt: 2000,
  outcome: "ok",
  executed: "yes",
  tokens: {
    input: 100,
    cachedInput: 20,
    cacheWrite: 3,
    audioInput: 4,
    embedding: 0,
    output: 50,
    reasoning: 6,
    audioOutput: 7,
    unattributed: 8
  },
  toolCalls: 2,
  serviceTier: "flex",
  audioMillis: 9,
  exact: true,
  cost: { nanoDollars: 1_234_567, toolNanoDollars: 34_567, snapshot: "2026-11-01" },
  ...given
})

const few = fc.nat({ max: 3 })

/** Rows of a few calls over four hours; two with one key are equal. */
export const arbitrary: fc.Arbitrary<ReadonlyArray<LedgerStore.Row>> = fc
  .uniqueArray(
    fc.record({
      callId: fc.nat({ max: 30 }).map((n) => `call-${n}`),
      number: fc.nat({ max: 3 }),
      tenant: few.map((n) => ["", "acme", "Ümlaut", "zebra"][n] ?? ""),
      keyId: few.map((n) => ["", "key-1", "key-2", "Key-1"][n] ?? ""),
      model: few.map((n) => `model-${n}`),
      deployment: few.map((n) => `deployment-${n}`),
      outcome: few.map((n) => ["ok", "cancelled", "RateLimited", "lost"][n] ?? ""),
      endedAt: fc.oneof(
        fc.integer({ min: 0, max: 4 * hour }),
        fc.constantFrom(0, hour - 1, hour, 2 * hour, 3 * hour)
      ),
      input: fc.nat({ max: 1_000_000 }),
      exact: fc.boolean(),
      serviceTier: few.map((n) => [null, "default", "flex", "priority"][n] ?? null),
      toolCalls: fc.nat({ max: 5 }),
      nanoDollars: fc.option(fc.nat({ max: 1_000_000_000_000 }))
    }),
    { selector: ({ callId, number }) => `${callId} ${number}`, maxLength: 40 }
  )
  .map((some) =>
    some.map(({ input, nanoDollars, ...given }) =>
      make({
        ...given,
        tokens: { ...make().tokens, input },
        cost:
          nanoDollars === null
            ? "unpriced"
            : { nanoDollars, ...Totals.toolPart(nanoDollars >> 1), snapshot: "s" }
      })
    )
  )
