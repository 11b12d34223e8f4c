import { Budget, Call, type InvalidSetting, LlmError, PriceCatalogue, Usage } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"
import * as RollingBudget from "./support/RollingBudget.ts"

const chat = Call.make({
  provider: "openai",
  operation: "chat.create",
  model: "gpt-6-luna",
  tenant: "acme",
  inputTokens: 1000,
  maxOutputTokens: 1000
})

/** 1,000 prompt tokens at the rate of a cache write, and 1,000 generated ones. */
const worst = 1000n * 125_000n + 1000n * 500_000n

const none: Budget.Settlement = { executed: "no", usage: undefined, events: 0 }
const used = (inputTokens: number, outputTokens: number): Budget.Settlement => ({
  executed: "yes",
  usage: { ...Usage.zero, inputTokens, outputTokens, totalTokens: inputTokens + outputTokens },
  events: 0
})

const noon = Date.UTC(2026, 10, 21, 12)

const withBudgets = <A, E>(
  settings: Budget.Settings,
  use: (budgets: Budget.Service) => Effect.Effect<A, E>
): Effect.Effect<A, E | InvalidSetting.InvalidSetting> =>
  Effect.andThen(TestClock.setTime(noon), Effect.flatMap(Budget.Budget, use)).pipe(
    Effect.provide(Budget.layer(settings))
  )

const statuses = Effect.flatten(Budget.Statuses)

const daily = (more: Partial<Budget.Limit> = {}): Budget.Settings => ({
  budgets: [{ name: "daily", dollars: "1", window: "day", ...more }]
})

describe("a reservation", () => {
  it.effect("takes the worst case, and gives back what was not used", () =>
    withBudgets(daily(), (budgets) =>
      Effect.gen(function* () {
        const lease = yield* budgets.reserve(chat, 0)
        const [running] = yield* statuses
        assert.strictEqual(running?.reserved, worst)
        assert.strictEqual(running?.spent, 0n)
        yield* lease.settle(used(1000, 200))
        const [settled] = yield* statuses
        assert.strictEqual(settled?.reserved, 0n)
        assert.strictEqual(settled?.spent, 1000n * 100_000n + 200n * 500_000n)
        assert.strictEqual(settled?.estimated, 0n)
        assert.strictEqual(settled?.limit, 1_000_000_000_000n)
        assert.strictEqual(settled?.endsAt, Date.UTC(2026, 10, 22))
      })
    )
  )

  it.effect("is settled by the tier that the reply names, with the fees of its tools", () =>
    withBudgets(daily(), (budgets) =>
      Effect.gen(function* () {
        const { usage } = used(1000, 200)
        const settled = Effect.fnUntraced(function* (more: Partial<Usage.Usage>) {
          const [before] = yield* statuses
          const lease = yield* budgets.reserve(chat, 0)
          yield* lease.settle({ executed: "yes", usage: { ...Usage.zero, ...usage, ...more }, events: 0 })
          const [after] = yield* statuses
          return [
            (after?.spent ?? 0n) - (before?.spent ?? 0n),
            (after?.estimated ?? 0n) - (before?.estimated ?? 0n)
          ]
        })
        const cost = 1000n * 100_000n + 200n * 500_000n
        assert.deepStrictEqual(yield* settled({ serviceTier: "flex" }), [cost / 2n, 0n])
        assert.deepStrictEqual(yield* settled({ serviceTier: "priority" }), [cost * 2n, 0n])
        assert.deepStrictEqual(yield* settled({ toolCalls: { webSearch: 1 } }), [cost + 10_000_000_000n, 0n])
        // Nobody knows what a tier without a price costs: the worst case, said to be an estimate.
        assert.deepStrictEqual(yield* settled({ serviceTier: "scale" }), [worst, worst])
      })
    )
  )

  it.effect("is settled once: what comes later changes nothing", () =>
    withBudgets(daily(), (budgets) =>
      Effect.gen(function* () {
        const lease = yield* budgets.reserve(chat, 0)
        yield* lease.settle(none)
        yield* lease.settle(used(1000, 1000))
        const [status] = yield* statuses
        assert.deepStrictEqual([status?.spent, status?.reserved], [0n, 0n])
      })
    )
  )

  it.effect("spends an estimate, marked as such, where something may have been executed without a word", () =>
    withBudgets(daily(), (budgets) =>
      Effect.gen(function* () {
        const silent = yield* budgets.reserve(chat, 0)
        yield* silent.settle({ executed: "possibly", usage: undefined, events: 0 })
        const [one] = yield* statuses
        assert.deepStrictEqual([one?.spent, one?.estimated, one?.reserved], [worst, worst, 0n])
        const left = yield* budgets.reserve(chat, 0)
        yield* left.settle({ executed: "yes", usage: undefined, events: 10 })
        const [both] = yield* statuses
        assert.strictEqual(both?.spent, worst + 1000n * 125_000n + 10n * 500_000n)
        assert.strictEqual(both?.estimated, both?.spent)
      })
    )
  )

  it.effect(
    "is refused where it is not covered, with what is spent, what was asked, and when to come again",
    () =>
      withBudgets(daily({ dollars: "0.0009" }), (budgets) =>
        Effect.gen(function* () {
          yield* budgets.reserve(chat, 0)
          const error = yield* Effect.flip(budgets.reserve(chat, 2))
          assert.strictEqual(error._tag, "BudgetExceeded")
          assert.deepStrictEqual(
            [error.budget, error.spent, error.asked, error.attempts, error.resetsAt],
            ["daily", 0.000625, 0.000625, 2, Date.UTC(2026, 10, 22)]
          )
        })
      )
  )

  it.effect("is granted by all budgets that cover the call, or by none", () =>
    withBudgets(
      {
        budgets: [
          { name: "money", dollars: "1", window: "day" },
          { name: "tokens", tokens: 3000, window: "hour" }
        ]
      },
      (budgets) =>
        Effect.gen(function* () {
          yield* budgets.reserve(chat, 0)
          const error = yield* Effect.flip(budgets.reserve(chat, 0))
          assert.deepStrictEqual([error.budget, error.spent, error.asked], ["tokens", 2000, 2000])
          const reserved = (yield* statuses).map((status) => [status.unit, status.reserved])
          assert.deepStrictEqual(reserved, [
            ["pico-dollars", worst],
            ["tokens", 2000n]
          ])
        })
    )
  )

  it.effect("counts tokens of embeddings without an answer, and nothing of what has no model", () =>
    withBudgets({ budgets: [{ name: "tokens", tokens: 5000, dollars: 1, window: "hour" }] }, (budgets) =>
      Effect.gen(function* () {
        const embed = {
          ...chat,
          operation: "embeddings.create",
          model: "text-embedding-3-small",
          maxOutputTokens: undefined
        }
        yield* budgets.reserve(embed, 0)
        yield* budgets.reserve(Call.make({ provider: "openai", operation: "files.list" }), 0)
        const reserved = (yield* statuses).map(({ reserved: amount }) => amount)
        assert.deepStrictEqual(reserved, [20_000_000n, 1000n])
      })
    )
  )
})

describe("concurrent calls", () => {
  it.effect("never overshoot: of 1,000 at once a budget for 300 admits 300, to the last micro-dollar", () =>
    withBudgets(daily({ dollars: "0.1875" }), (budgets) =>
      Effect.gen(function* () {
        let most = 0n
        let admitted = 0
        const one = Effect.scoped(
          Effect.gen(function* () {
            const lease = yield* Effect.acquireRelease(budgets.reserve(chat, 0), (held) =>
              held.settle(used(1000, 1000))
            )
            admitted += 1
            const [status] = yield* statuses
            const taken = (status?.spent ?? 0n) + (status?.reserved ?? 0n)
            if (taken > most) most = taken
            assert.isUndefined(lease.progress(1000))
            yield* Effect.sleep("1 second")
          })
        )
        const fiber = yield* Effect.forkChild(
          Effect.all(
            Array.from({ length: 1000 }, () => Effect.result(one)),
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        assert.strictEqual(300n * worst, 187_500_000_000n)
        assert.strictEqual(admitted, 300)
        assert.strictEqual(most, 187_500_000_000n)
        const [status] = yield* statuses
        assert.strictEqual(status?.reserved, 0n)
        assert.strictEqual(status?.spent, 300n * 600_000_000n)
      })
    )
  )

  const step = fc.record({
    kind: fc.constantFrom("reserve", "progress", "settle", "refund", "lose", "interrupt", "wait"),
    which: fc.nat(9),
    size: fc.nat(5000)
  })

  it("leave nothing reserved behind, whatever happens in whatever order, and never exceed the budget", () =>
    Property.holdsEffect(
      fc.array(step, { maxLength: 60 }),
      (steps) =>
        Effect.gen(function* () {
          yield* TestClock.setTime(noon)
          const budgets = yield* Budget.Budget
          const open: Array<{ readonly lease: Budget.Lease; readonly fiber?: Fiber.Fiber<void, unknown> }> =
            []
          for (const { kind, size, which } of steps) {
            const chosen = open[which % Math.max(1, open.length)]
            if (kind === "reserve") {
              const call = {
                ...chat,
                tenant: `t${which % 2}`,
                inputTokens: size,
                maxOutputTokens: which % 3 === 0 ? undefined : size
              }
              const lease = yield* Effect.option(budgets.reserve(call, 0))
              if (lease._tag === "Some") open.push({ lease: lease.value })
            } else if (kind === "interrupt") {
              const running = Effect.scoped(
                Effect.andThen(
                  Effect.acquireRelease(budgets.reserve(chat, 0), (lease) => lease.settle(none)),
                  Effect.never
                )
              )
              const fiber = yield* Effect.forkChild(Effect.ignore(running))
              yield* Effect.yieldNow
              yield* Fiber.interrupt(fiber)
            } else if (kind === "wait") {
              yield* TestClock.adjust("20 seconds")
            } else if (chosen !== undefined) {
              if (kind === "progress") chosen.lease.progress(size)
              if (kind === "settle") yield* chosen.lease.settle(used(size, size))
              if (kind === "refund") yield* chosen.lease.settle(none)
              if (kind === "lose") {
                yield* chosen.lease.settle({ executed: "possibly", usage: undefined, events: size % 50 })
              }
            }
            for (const status of yield* statuses) {
              assert.isTrue(status.reserved >= 0n)
              // What is reserved fits; only a call that used more than it said can take the spent sum higher.
              if (status.spent === 0n) assert.isTrue(status.reserved <= status.limit)
            }
          }
          for (const { lease } of open) yield* lease.settle(none)
          for (const status of yield* statuses) assert.strictEqual(status.reserved, 0n)
        }).pipe(
          Effect.provide(
            Layer.fresh(
              Budget.layer({
                budgets: [
                  { name: "minute", dollars: "0.005", tokens: 20_000, window: "minute", per: ["tenant"] },
                  { name: "total", dollars: "0.02", window: "total" }
                ],
                onWarning: () => {}
              })
            )
          )
        ),
      150
    ))
})

describe("a stream", () => {
  const unbounded = { ...chat, stream: true, maxOutputTokens: undefined }

  it.effect("reserves more while it runs, and ends once no budget covers more", () =>
    withBudgets(
      { budgets: [{ name: "tokens", tokens: 2300, window: "day" }], outputTokens: 500 },
      (budgets) =>
        Effect.gen(function* () {
          const lease = yield* budgets.reserve(unbounded, 0)
          const reserved = Effect.map(statuses, ([status]) => status?.reserved)
          assert.strictEqual(yield* reserved, 1500n)
          assert.isUndefined(lease.progress(500))
          assert.strictEqual(yield* reserved, 1500n)
          assert.isUndefined(lease.progress(501))
          assert.strictEqual(yield* reserved, 2001n)
          // The last tokens are too few for a whole step.
          for (let events = 502; events <= 1300; events++) assert.isUndefined(lease.progress(events))
          assert.strictEqual(yield* reserved, 2300n)
          const error = lease.progress(1301)
          assert.strictEqual(error?._tag, "BudgetExceeded")
          assert.strictEqual(error?.spent, 2300)
          assert.strictEqual(lease.progress(1302)?._tag, "BudgetExceeded")
          yield* lease.settle({ executed: "yes", usage: undefined, events: 1301 })
          const [status] = yield* statuses
          assert.deepStrictEqual([status?.spent, status?.reserved, status?.estimated], [2301n, 0n, 2301n])
          assert.isUndefined(lease.progress(5000))
        })
    )
  )

  it.effect("is not ended by what others have used, as long as its own reservation holds", () =>
    withBudgets({ budgets: [{ name: "tokens", tokens: 4000, window: "day" }] }, (budgets) =>
      Effect.gen(function* () {
        const lease = yield* budgets.reserve({ ...unbounded, maxOutputTokens: 1000 }, 0)
        const other = yield* budgets.reserve(chat, 0)
        yield* other.settle(used(9000, 0))
        assert.isUndefined(lease.progress(1000))
        assert.strictEqual(lease.progress(1001)?.budget, "tokens")
      })
    )
  )
})

describe("an unpriced model", () => {
  const unknown = { ...chat, model: "gpt-6-lunatic" }

  it.effect("is refused under a budget in dollars, and the error says why", () =>
    withBudgets(daily(), (budgets) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(budgets.reserve(unknown, 0))
        assert.include(error.message, "gpt-6-lunatic of openai has no known price (model)")
        const [status] = yield* statuses
        assert.strictEqual(status?.reserved, 0n)
      })
    )
  )

  it.effect("costs nothing where that was asked for, and its tokens count", () =>
    withBudgets({ ...daily({ tokens: 10_000 }), unpriced: "allow" }, (budgets) =>
      Effect.gen(function* () {
        const lease = yield* budgets.reserve(unknown, 0)
        yield* lease.settle(used(10, 5))
        assert.deepStrictEqual(
          (yield* statuses).map(({ spent }) => spent),
          [0n, 15n]
        )
      })
    )
  )

  it.effect("is no matter for a budget in tokens", () =>
    withBudgets(daily({ dollars: undefined, tokens: 10_000 }), (budgets) =>
      Effect.asVoid(budgets.reserve(unknown, 0))
    )
  )

  it.effect("gets its price from the catalogue that is provided", () =>
    withBudgets(daily(), (budgets) =>
      Effect.gen(function* () {
        yield* budgets.reserve(unknown, 0)
        assert.strictEqual((yield* statuses)[0]?.reserved, 3_000_000_000n)
      })
    ).pipe(
      Effect.provide(
        PriceCatalogue.layerWith({
          prices: [{ provider: "openai", model: "gpt-6-lunatic", input: 1, output: 2 }]
        })
      )
    )
  )
})

describe("which calls", () => {
  it.effect("share a budget is said by match and per", () =>
    withBudgets(
      {
        budgets: [
          {
            name: "each",
            tokens: 2500,
            window: "day",
            per: ["tenant", "keyId"],
            match: { provider: "openai" }
          },
          { name: "small", tokens: 4500, window: "day", match: { model: ["gpt-6-luna", "gpt-4o-mini"] } }
        ]
      },
      (budgets) =>
        Effect.gen(function* () {
          const ask = (call: Partial<Call.Call>) =>
            Effect.match(budgets.reserve({ ...chat, ...call }, 0), {
              onFailure: ({ budget }) => budget,
              onSuccess: () => "granted"
            })
          assert.strictEqual(yield* ask({ keyId: "k1" }), "granted")
          assert.strictEqual(yield* ask({ keyId: "k1" }), "each")
          assert.strictEqual(yield* ask({ keyId: "k1", provider: "azure" }), "granted")
          assert.strictEqual(yield* ask({ keyId: "k2" }), "small")
          assert.strictEqual(yield* ask({ keyId: "k2", model: "gpt-6-sol" }), "granted")
          assert.strictEqual(
            yield* ask({ tenant: undefined, keyId: undefined, model: "gpt-6-sol" }),
            "granted"
          )
          const each = (yield* statuses).filter(({ budget }) => budget === "each")
          assert.deepStrictEqual(
            each.map(({ of }) => of),
            [
              { tenant: "acme", keyId: "k1" },
              { tenant: "acme", keyId: "k2" },
              { tenant: "", keyId: "" }
            ]
          )
        })
    )
  )
})

describe("each key's own budget", () => {
  it.effect("is asked at every call, and is none where there is none", () => {
    const tokens = new Map([["k1", 4000]])
    const dollars = new Map([["k2", "0.000001"]])
    return withBudgets(
      {
        budgets: [
          {
            name: "keys",
            tokens: ({ keyId = "" }) => tokens.get(keyId),
            dollars: ({ keyId = "" }) => dollars.get(keyId),
            window: "day",
            per: ["keyId"]
          }
        ]
      },
      (budgets) =>
        Effect.gen(function* () {
          const ask = (keyId: string | undefined) =>
            Effect.match(budgets.reserve({ ...chat, keyId }, 0), {
              onFailure: ({ budget }) => budget,
              onSuccess: () => "granted"
            })
          assert.strictEqual(yield* ask("k1"), "granted")
          assert.strictEqual(yield* ask("k1"), "granted")
          assert.strictEqual(yield* ask("k1"), "keys")
          assert.strictEqual(yield* ask("k2"), "keys")
          assert.strictEqual(yield* ask("k3"), "granted")
          assert.strictEqual(yield* ask(undefined), "granted")
          tokens.set("k1", 6000)
          assert.strictEqual(yield* ask("k1"), "granted")
          const standing = (yield* statuses).filter(({ of }) => of.keyId === "k1")
          assert.deepStrictEqual(
            standing.map(({ limit, reserved }) => [limit, reserved]),
            [[6000n, 6000n]]
          )
          tokens.set("k1", Number.NaN)
          assert.strictEqual(yield* ask("k1"), "keys")
        })
    )
  })
})

describe("a rolling window", () => {
  it("never holds more than the budget in any span of its length, and gives all back", () =>
    Property.holdsEffect(
      RollingBudget.steps,
      (steps) =>
        Effect.gen(function* () {
          yield* RollingBudget.holds(yield* Budget.Budget, statuses, steps)
          for (const { reserved } of yield* statuses) assert.strictEqual(reserved, 0n)
        }).pipe(Effect.provide(Layer.fresh(Budget.layer(RollingBudget.settings)))),
      300
    ))

  it.effect("warns again once less is spent", () => {
    const warnings: Array<readonly [bigint, number]> = []
    return withBudgets(
      {
        budgets: [{ name: "day", tokens: 10_000, window: { rolling: "24 hours" }, warnAt: 0.5 }],
        onWarning: ({ endsAt, spent }) => void warnings.push([spent, endsAt])
      },
      (budgets) =>
        Effect.gen(function* () {
          const spend = Effect.flatMap(budgets.reserve(chat, 0), (lease) => lease.settle(used(1000, 1000)))
          const counts = Effect.map(Metric.snapshot, (metrics) =>
            metrics.map(({ attributes, id, state }) => [
              id,
              attributes?.["llm.budget"],
              "count" in state ? state.count : 0
            ])
          )
          const part = 24 * RollingBudget.minute
          for (let times = 0; times < 4; times++) yield* spend
          assert.deepStrictEqual(warnings, [[6000n, noon + 60 * part + part]])
          yield* TestClock.setTime(noon + 60 * part + part - 1)
          assert.strictEqual((yield* statuses)[0]?.spent, 8000n)
          yield* TestClock.setTime(noon + 60 * part + part)
          assert.strictEqual((yield* statuses)[0]?.spent, 0n)
          for (let times = 0; times < 4; times++) yield* spend
          assert.strictEqual(warnings.length, 2)
          yield* spend
          yield* Effect.flip(budgets.reserve(chat, 0))
          assert.sameDeepMembers(yield* counts, [
            ["llm.budget.warnings", "day", 2],
            ["llm.budget.refusals", "day", 1]
          ])
        })
    ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  })
})

describe("a window", () => {
  it.effect.each([
    ["minute", Date.UTC(2026, 10, 21, 12, 1)],
    ["hour", Date.UTC(2026, 10, 21, 13)],
    ["day", Date.UTC(2026, 10, 22)],
    ["month", Date.UTC(2026, 11, 1)],
    ["total", Number.POSITIVE_INFINITY]
  ] as const)("of a %s is one of the calendar, in UTC", ([window, end]) =>
    withBudgets({ budgets: [{ name: "tokens", tokens: 2000, window }] }, (budgets) =>
      Effect.gen(function* () {
        const early = yield* budgets.reserve(chat, 0)
        assert.strictEqual((yield* statuses)[0]?.endsAt, end)
        yield* TestClock.setTime(Number.isFinite(end) ? end - 1 : noon * 2)
        assert.isTrue(LlmError.isLlmError(yield* Effect.flip(budgets.reserve(chat, 0))))
        if (!Number.isFinite(end)) return
        yield* TestClock.setTime(end)
        yield* budgets.reserve(chat, 0)
        // What was reserved before belongs to the window before.
        yield* early.settle(used(1000, 1000))
        const [status] = yield* statuses
        assert.deepStrictEqual([status?.spent, status?.reserved], [0n, 2000n])
      })
    )
  )
})

describe("a warning", () => {
  it.effect("is given once in each window, when the threshold is reached", () => {
    const warnings: Array<Budget.Warning> = []
    const settings: Budget.Settings = {
      budgets: [{ name: "tokens", tokens: 10_000, window: "hour", per: ["tenant"], warnAt: 0.5 }],
      onWarning: (warning) => void warnings.push(warning)
    }
    return withBudgets(settings, (budgets) =>
      Effect.gen(function* () {
        const spend = (tokens: number) =>
          Effect.flatMap(budgets.reserve(chat, 0), (lease) => lease.settle(used(tokens, 0)))
        yield* spend(4999)
        assert.strictEqual(warnings.length, 0)
        yield* spend(1)
        yield* spend(1000)
        assert.strictEqual(warnings.length, 1)
        assert.deepStrictEqual(warnings[0], {
          budget: "tokens",
          unit: "tokens",
          of: { tenant: "acme" },
          limit: 10_000n,
          spent: 5000n,
          endsAt: Date.UTC(2026, 10, 21, 13)
        })
        yield* TestClock.adjust("1 hour")
        yield* spend(8000)
        assert.strictEqual(warnings.length, 2)
      })
    )
  })
})

describe("settings", () => {
  const limit = { name: "a", tokens: 1, window: "day" }

  it.effect.each([
    [{}, "budgets", '"missing"', "a list of at least one budget"],
    [{ budgets: [] }, "budgets", "an array", "a list of at least one budget"],
    [
      { budgets: [{ ...limit, window: "week" }] },
      "budgets[0].window",
      '"week"',
      "minute or hour or day or month or total"
    ],
    [
      { budgets: [{ ...limit, window: { rolling: "1 millis" } }] },
      "budgets[0].window.rolling",
      '"1 millis"',
      "a duration from 1000 to 31622400000 ms"
    ],
    [
      { budgets: [{ ...limit, window: { rolling: "1 day", of: "the year" } }] },
      "budgets[0].window",
      "an object",
      'or { rolling: "24 hours" }'
    ],
    [
      { budgets: [{ ...limit, window: 0 }] },
      "budgets[0].window",
      "0",
      "minute or hour or day or month or total"
    ],
    [
      { budgets: [{ name: "a", tokens: 1 }] },
      "budgets[0].window",
      "missing",
      "minute or hour or day or month or total"
    ],
    [
      { budgets: [{ ...limit, tokens: -1 }] },
      "budgets[0].tokens",
      "-1",
      "a whole number from 1 to 1000000000000000"
    ],
    [{ budgets: [{ ...limit, dollars: "-5" }] }, "budgets[0].dollars", '"-5"', "dollars above 0"],
    [{ budgets: [{ ...limit, dollars: 0 }] }, "budgets[0].dollars", "0", "dollars above 0"],
    [{ budgets: [{ ...limit, dollars: "1e3" }] }, "budgets[0].dollars", '"1e3"', "dollars above 0"],
    [{ budgets: [{ ...limit, dollars: 1_000_001 }] }, "budgets[0].dollars", "1000001", "up to 1000000"],
    [{ budgets: [{ name: "a", window: "day" }] }, "budgets[0].dollars", "missing", "or tokens"],
    [{ budgets: [limit, limit] }, "budgets[1].name", '"a"', "a name that no other budget has"],
    [{ budgets: [{ ...limit, name: "" }] }, "budgets[0].name", '""', "a name"],
    [{ budgets: [{ ...limit, per: ["team"] }] }, "budgets[0].per", "an array", "a list of tenant, keyId"],
    [{ budgets: [{ ...limit, match: { team: "x" } }] }, "budgets[0].match", "an object", "tenant, keyId"],
    [{ budgets: [{ ...limit, warnAt: 80 }] }, "budgets[0].warnAt", "80", "a number above 0 and up to 1"],
    [{ budgets: [{ ...limit, limit: 3 }] }, "budgets[0].limit", "unknown", "one of name, dollars"],
    [{ budgets: [limit], unpriced: "zero" }, "unpriced", '"zero"', "refuse or allow"],
    [{ budgets: [limit], outputTokens: 0 }, "outputTokens", "0", "a whole number from 1"],
    [{ budgets: [limit], onWarning: "mail" }, "onWarning", '"mail"', "a function"]
  ] as const)("that cannot be fail at start: %j", ([given, setting, value, allowed]) =>
    Effect.gen(function* () {
      // As JavaScript would call it.
      const settings: Budget.Settings = JSON.parse(JSON.stringify(given))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Budget.layer(settings))))
      assert.deepStrictEqual([error.owner, error.setting, error.value], ["Budget.layer", setting, value])
      assert.include(error.allowed, allowed)
    })
  )
})
