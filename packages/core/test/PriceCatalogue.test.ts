import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Cost, PriceCatalogue, Usage } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as GenaiPrices from "@pydantic/genai-prices"
import { Effect, Layer, Result } from "effect"
import * as PriceData from "../src/internal/priceData.ts"
import * as Property from "./support/Property.ts"

const now = Date.UTC(2026, 10, 21, 12)
const usage = (counts: Partial<Usage.Usage>): Usage.Usage => {
  const { inputTokens = 0, outputTokens = 0 } = counts
  return { ...Usage.zero, totalTokens: inputTokens + outputTokens, ...counts }
}

const priceOf = (model: string, provider = "openai", at = now, terms?: PriceCatalogue.Terms) =>
  PriceCatalogue.builtIn.priceOf(model, provider, at, terms)

const costOf = (
  counts: Partial<Usage.Usage>,
  model: string,
  provider = "openai",
  at = now,
  terms?: PriceCatalogue.Terms
): bigint =>
  Result.getOrThrow(Cost.make(usage(counts), Result.getOrThrow(priceOf(model, provider, at, terms)))).total

const why = (result: Result.Result<unknown, PriceCatalogue.Unpriced>): string =>
  Result.match(result, { onSuccess: () => "priced", onFailure: ({ unknown }) => unknown })

describe("the built-in data", () => {
  it("is what its sources make of it, byte by byte", () => {
    const script = fileURLToPath(new URL("../../../scripts/prices.ts", import.meta.url))
    const { status, stderr } = spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" })
    assert.strictEqual(status, 0, stderr)
  })

  it("costs what its base says, for every model, at several dates, to the last digit of a double", () => {
    const uses = [
      { inputTokens: 1000, cachedTokens: 300, cacheWriteTokens: 200, outputTokens: 700 },
      { inputTokens: 500_000, cachedTokens: 20_000, outputTokens: 100 }
    ]
    let compared = 0
    for (const [provider, { prices }] of Object.entries(PriceData.providers)) {
      for (const { models, rates, source } of prices) {
        const [model] = models
        if (model === undefined || source !== undefined || rates.audioHour !== undefined) continue
        if (rates.output === undefined) continue
        for (const at of [Date.UTC(2025, 4, 1, 2), Date.UTC(2026, 6, 15, 12), Date.UTC(2026, 8, 1, 3), now]) {
          // The base lets prices by the hour hold before the list that they are in.
          if (provider === "deepseek" && at < Date.UTC(2026, 7, 17)) continue
          for (const counts of uses) {
            const name = model.replace(/\*$/u, "-")
            const theirs = GenaiPrices.calcPrice(
              {
                input_tokens: counts.inputTokens,
                cache_read_tokens: counts.cachedTokens,
                ...(counts.cacheWriteTokens === undefined
                  ? {}
                  : { cache_write_tokens: counts.cacheWriteTokens }),
                output_tokens: counts.outputTokens
              },
              name,
              { providerId: provider, timestamp: new Date(at) }
            )
            const ours = Cost.toDollars(costOf(counts, name, provider, at))
            if (theirs === null) continue
            assert.closeTo(ours, theirs.total_price, theirs.total_price * 1e-12, `${provider} ${name}`)
            compared += 1
          }
        }
      }
    }
    assert.isAbove(compared, 1500)
  })

  it("bills the whole request of more than 272,000 prompt tokens at twice the input and 1.5 times the output", () => {
    for (const model of [
      "gpt-6-luna",
      "gpt-6-sol",
      "gpt-6.1-terra",
      "gpt-6.1-sol",
      "gpt-5.6-sol",
      "gpt-5.5"
    ]) {
      const { rates } = Result.getOrThrow(priceOf(model))
      const input = BigInt(rates.input ?? 0)
      const output = BigInt(rates.output ?? 0)
      const cost = (inputTokens: number) => costOf({ inputTokens, outputTokens: 1000 }, model)
      assert.strictEqual(cost(271_999), 271_999n * input + 1000n * output, model)
      assert.strictEqual(cost(272_000), 272_000n * input + 1000n * output, model)
      assert.strictEqual(cost(272_001), 272_001n * input * 2n + 1500n * output, model)
    }
  })

  it("makes no Realtime session cheaper than it is, whatever was said, shown and cached", () => {
    const tokens = fc.nat({ max: 100_000 })
    const models = fc.constantFrom(
      "gpt-realtime",
      "gpt-realtime-2",
      "gpt-realtime-2.1",
      "gpt-realtime-2.1-mini"
    )
    const counts = fc.record({
      text: tokens,
      image: tokens,
      sound: tokens,
      cachedText: tokens,
      cachedImage: tokens,
      cachedSound: tokens,
      said: tokens,
      spoken: tokens
    })
    fc.assert(
      fc.property(models, counts, (model, of) => {
        const cached = of.cachedText + of.cachedImage + of.cachedSound
        const theirs = GenaiPrices.calcPrice(
          {
            input_tokens: of.text + of.image + of.sound + cached,
            input_image_tokens: of.image + of.cachedImage,
            input_audio_tokens: of.sound + of.cachedSound,
            cache_read_tokens: cached,
            cache_image_read_tokens: of.cachedImage,
            cache_audio_read_tokens: of.cachedSound,
            output_tokens: of.said + of.spoken,
            output_audio_tokens: of.spoken
          },
          model,
          { providerId: "openai", timestamp: new Date(now) }
        )
        assert.isNotNull(theirs)
        const ours = Cost.toDollars(
          costOf(
            {
              inputTokens: of.text + of.image + of.sound + cached,
              audioInputTokens: of.sound + of.cachedSound,
              cachedTokens: cached,
              outputTokens: of.said + of.spoken,
              audioOutputTokens: of.spoken
            },
            model
          )
        )
        assert.isAtLeast(ours * (1 + 1e-12), theirs?.total_price ?? Infinity)
      })
    )
  })

  it("knows what a model cost at the time", () => {
    const at = (date: number) =>
      costOf({ inputTokens: 1000, outputTokens: 100 }, "gpt-5.6-terra", "openai", date)
    // $0.0040 in July, $0.0032 since the cut of July 30.
    assert.strictEqual(at(Date.UTC(2026, 6, 15)), 4_000_000_000n)
    assert.strictEqual(at(Date.UTC(2026, 6, 30) - 1), 4_000_000_000n)
    assert.strictEqual(at(Date.UTC(2026, 6, 30)), 3_200_000_000n)
    assert.strictEqual(at(now), 3_200_000_000n)
  })

  it("knows prices that change with the hour", () => {
    const at = (hour: number) =>
      costOf({ inputTokens: 1000 }, "deepseek-v4-flash", "deepseek", Date.UTC(2026, 10, 21, hour))
    assert.deepStrictEqual(
      [0, 1, 3, 4, 6, 9, 10].map(at),
      [220n, 440n, 440n, 220n, 440n, 440n, 220n].map((one) => one * 1_000_000n)
    )
  })

  it("has no price for a model before it was sold", () => {
    assert.strictEqual(why(priceOf("gpt-6.1-terra", "openai", Date.UTC(2026, 9, 25))), "date")
    assert.strictEqual(why(priceOf("gpt-6.1-terra", "openai", Date.UTC(2026, 9, 26))), "priced")
  })

  it("says where a price comes from, and from when it is", () => {
    const { effectiveFrom, snapshot, source } = Result.getOrThrow(priceOf("gpt-6.1-terra"))
    assert.strictEqual(effectiveFrom, "2026-10-26")
    assert.match(source, /^https:\/\//u)
    assert.strictEqual(snapshot, PriceData.snapshot)
    assert.match(Result.getOrThrow(priceOf("gpt-4o")).source, /^npm:@pydantic\/genai-prices@/u)
    for (const { prices } of Object.values(PriceData.providers)) {
      for (const { from, source: page } of prices) {
        // Free, and what the base knows from no date on either.
        if (page !== undefined && !/moderation|realtime/u.test(page))
          assert.match(from ?? "", /^\d{4}-\d{2}-\d{2}$/u)
      }
    }
  })

  it("takes dated names for their model, unless they have a price of their own", () => {
    assert.strictEqual(Result.getOrThrow(priceOf("gpt-6-luna-2026-09-22")).model, "gpt-6-luna")
    assert.strictEqual(Result.getOrThrow(priceOf("GPT-6-Luna")).model, "gpt-6-luna")
    assert.strictEqual(Result.getOrThrow(priceOf("gpt-4o-2024-05-13")).model, "gpt-4o-2024-05-13")
    assert.strictEqual(Result.getOrThrow(priceOf("ft:gpt-4o-2024-08-06:acme::x")).model, "ft:gpt-4o-2024-*")
  })

  it.each([
    ["gpt-6-lunatic", "openai", "model"],
    ["gpt-6-luna", "nobody", "provider"],
    ["gpt-6-luna", "constructor", "provider"],
    ["gpt-image-2", "openai", "model"],
    ["", "openai", "model"]
  ])("has no price for %s of %s, rather than 0", (model, provider, unknown) => {
    assert.strictEqual(why(priceOf(model, provider)), unknown)
    assert.strictEqual(why(PriceCatalogue.none.priceOf(model, provider, now)), "provider")
  })

  it("gives moderation for nothing, which is a price", () => {
    assert.strictEqual(costOf({ inputTokens: 1000 }, "omni-moderation-latest"), 0n)
  })

  it("finds at Azure what only OpenAI lists, without OpenAI's tiers", () => {
    assert.strictEqual(why(priceOf("gpt-6-luna", "azure")), "priced")
    assert.strictEqual(why(priceOf("gpt-6-luna", "azure", now, { tier: "batch" })), "tier")
  })
})

describe("terms", () => {
  it.each([
    ["auto", 1000n],
    ["default", 1000n],
    ["batch", 500n],
    ["flex", 500n],
    ["fast", 2000n],
    ["priority", 2000n],
    ["Priority", 2000n]
  ])("bills the tier %s at %d thousandths", (tier, thousandths) => {
    const counts = { inputTokens: 1001, outputTokens: 33 }
    const plain = costOf(counts, "gpt-6-luna")
    assert.strictEqual(costOf(counts, "gpt-6-luna", "openai", now, { tier }), (plain * thousandths) / 1000n)
    const regional = costOf(counts, "gpt-6-luna", "openai", now, { tier, regional: true })
    assert.strictEqual(regional, (plain * thousandths * 11n) / 10_000n)
  })

  it("knows what built-in tools cost, which terms do not change", () => {
    const flex = PriceCatalogue.builtIn.priceOf("gpt-6-luna", "openai", now, { tier: "flex" })
    const tools = { webSearch: 10_000_000_000, fileSearch: 2_500_000_000, container: 30_000_000_000 }
    assert.deepStrictEqual(Result.getOrThrow(flex).tools, tools)
    assert.deepStrictEqual(
      Result.getOrThrow(PriceCatalogue.builtIn.priceOf("gpt-6-luna", "azure", now)).tools,
      {}
    )
  })

  it("has no price for a tier without one", () => {
    assert.strictEqual(why(priceOf("gpt-6-luna", "openai", now, { tier: "scale" })), "tier")
    assert.strictEqual(why(priceOf("mistral-large-latest", "mistral", now, { regional: true })), "tier")
    assert.strictEqual(why(priceOf("gpt-6-luna", "openai", now, { tier: "constructor" })), "tier")
    assert.strictEqual(why(priceOf("gpt-6-luna", "openai", now, { tier: "__proto__" })), "tier")
  })
})

describe("a price that was asked for before", () => {
  const layer = PriceCatalogue.layerText(`{
    "providers": { "simulator": { "as": "openai" } },
    "prices": [
      { "provider": "openai", "model": "gpt-6-luna", "effectiveFrom": "2026-11-01", "input": 1, "output": 2 },
      { "provider": "openai", "model": "gpt-6-luna", "effectiveFrom": "2026-11-20", "input": 3, "output": 4 }
    ]
  }`)
  const fresh = () => Effect.runPromise(Effect.provide(PriceCatalogue.PriceCatalogue, Layer.fresh(layer)))
  const boundaries = [
    ...["2025-06-10", "2026-07-30", "2026-08-17", "2026-10-26", "2026-11-01", "2026-11-20"].map(Date.parse),
    // Hours at which prices change.
    ...[30, 60, 240, 360, 600, 990].map((minutes) => Date.UTC(2026, 10, 21) + minutes * 60_000)
  ]
  const asked = fc.record({
    model: fc.constantFrom(
      "gpt-6-luna",
      "gpt-6-luna-2026-09-22",
      "o3",
      "gpt-6.1-terra",
      "deepseek-v4-pro",
      "x"
    ),
    provider: fc.constantFrom("openai", "azure", "simulator", "deepseek", "constructor"),
    at: fc
      .tuple(fc.constantFrom(...boundaries, now), fc.constantFrom(-60_001, -1, 0, 1, 59_999, 86_400_000))
      .map(([boundary, offset]) => boundary + offset),
    tier: fc.constantFrom(undefined, "", "default", "FLEX", "fast", "priority", "scale", "constructor"),
    regional: fc.boolean()
  })

  type Question = typeof asked extends fc.Arbitrary<infer A> ? A : never

  it("is what a catalogue says that was asked in another order", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(asked, { minLength: 2, maxLength: 40 }), async (questions) => {
        const [forwards, backwards] = await Promise.all([fresh(), fresh()])
        const answer = (prices: PriceCatalogue.Service, { at, model, provider, ...terms }: Question) =>
          Result.match(prices.priceOf(model, provider, at, terms), {
            onSuccess: (price) => JSON.stringify(price),
            onFailure: ({ unknown }) => unknown
          })
        const first = questions.map((question) => answer(forwards, question))
        const last = questions.toReversed().map((question) => answer(backwards, question))
        assert.deepStrictEqual(first, last.toReversed())
      }),
      { ...Property.parameters, numRuns: 100 }
    )
  })

  it("is the same object, as long as it holds", () => {
    const one = priceOf("gpt-6-luna", "openai", now)
    assert.strictEqual(priceOf("gpt-6-luna", "openai", now + 1, { tier: "default" }), one)
    assert.notStrictEqual(priceOf("gpt-6-luna", "openai", now, { tier: "flex" }), one)
  })
})

describe("layerText", () => {
  const withText = (text: string) =>
    Effect.gen(function* () {
      return yield* PriceCatalogue.PriceCatalogue
    }).pipe(Effect.provide(PriceCatalogue.layerText(text, "prices.json")))

  it.effect("takes the place of what is built in, from its date on", () =>
    Effect.gen(function* () {
      const prices = yield* withText(`{
        "providers": { "simulator": { "as": "openai" }, "openai": { "tiers": { "scale": 0.75 } } },
        "prices": [
          { "provider": "openai", "model": "gpt-6-luna", "effectiveFrom": "2026-11-01", "source": "contract 7",
            "input": 0.100001, "cachedInput": "0", "output": 0.3,
            "above": { "tokens": 1000, "output": "0.6" } },
          { "provider": "local", "model": ["qwen3", "qwen3-*"], "input": "0.04", "output": "0.12" }
        ]
      }`)
      const rates = (at: number, provider = "openai") =>
        Result.getOrThrow(prices.priceOf("gpt-6-luna", provider, at)).rates
      assert.strictEqual(rates(Date.UTC(2026, 9, 31)).input, 100_000)
      assert.deepStrictEqual(rates(Date.UTC(2026, 10, 1)), {
        input: 100_001,
        cachedInput: 0,
        output: 300_000
      })
      assert.deepStrictEqual(rates(now, "simulator"), rates(now))
      const price = Result.getOrThrow(prices.priceOf("gpt-6-luna", "openai", now))
      assert.strictEqual(price.source, "contract 7")
      assert.deepStrictEqual(price.long, {
        above: 1000,
        rates: { input: 100_001, cachedInput: 0, output: 600_000 }
      })
      assert.strictEqual(
        Result.getOrThrow(prices.priceOf("gpt-5.5", "openai", now, { tier: "scale" })).factor,
        750_000
      )
      assert.strictEqual(Result.getOrThrow(prices.priceOf("qwen3-32b", "local", 0)).rates.output, 120_000)
      assert.strictEqual(why(prices.priceOf("llama", "local", now)), "model")
    })
  )

  it.effect("has prices for tools, in dollars for a thousand calls", () =>
    Effect.gen(function* () {
      const prices = yield* PriceCatalogue.PriceCatalogue
      const { tools } = Result.getOrThrow(prices.priceOf("gpt-6-luna", "openai", now))
      assert.deepInclude(tools, {
        webSearch: 8_000_000_000,
        fileSearch: 2_500_000_000,
        largeContainer: 120_000_000_001
      })
    }).pipe(
      Effect.provide(
        PriceCatalogue.layerText(
          `{ "providers": { "openai": { "tools": { "webSearch": 8, "largeContainer": 120.000000001 } } } }`
        )
      )
    )
  )

  it.effect("names the data by its content", () =>
    Effect.gen(function* () {
      const text = (input: string) => `{"prices":[{"provider":"a","model":"b","input":${input}}]}`
      const [one, same, other] = yield* Effect.all([text("1"), text('"1.0"'), text("2")].map(withText))
      assert.strictEqual(one?.snapshot, same?.snapshot)
      assert.notStrictEqual(one?.snapshot, other?.snapshot)
      assert.notStrictEqual(one?.snapshot, PriceCatalogue.builtIn.snapshot)
    })
  )

  const price = (fields: string) =>
    `{"prices":[{"provider":"a","model":"b","input":"1"},{"provider":"a","model":"b"${fields}}]}`

  it.effect.each([
    ["{", "the file is Expected", "allowed is JSON"],
    ["[]", "the file is []", "object"],
    ["3", 'the file is "3"', "object"],
    [`{"price":[]}`, "price is []", "no field of that name"],
    [`{"prices":{}}`, "prices is {}", "array"],
    [price(""), "prices[1] is {", "at least one of input"],
    [price(`,"input":-1`), 'prices[1].input is "-1"', "dollars with at most six decimals"],
    [price(`,"input":1e-7`), 'prices[1].input is "1e-7"', "dollars with at most six decimals"],
    [price(`,"input":0.10000000000000000001`), 'prices[1].input is "0.10000000000000000001"', "six decimals"],
    [price(`,"output":"free"`), 'prices[1].output is "free"', "dollars"],
    [price(`,"output":null`), "prices[1].output is null", "dollars"],
    [price(`,"output":"99999999999999999"`), "prices[1].output is", "dollars"],
    [price(`,"ouput":"1"`), 'prices[1].ouput is "1"', "no field of that name"],
    [
      price(`,"input":"1","effectiveFrom":"2026-02-30"`),
      'prices[1].effectiveFrom is "2026-02-30"',
      "a day such as"
    ],
    [price(`,"input":"1","effectiveFrom":"soon"`), 'prices[1].effectiveFrom is "soon"', "a day such as"],
    [
      price(`,"input":"1","above":{"tokens":1.5,"input":2}`),
      'prices[1].above.tokens is "1.5"',
      "whole number"
    ],
    [price(`,"input":"1","above":{"tokens":1}`), "prices[1].above is {", "at least one of"],
    [`{"prices":[{"model":"b","input":"1"}]}`, "prices[0].provider is missing", "a value"],
    [`{"providers":{"a":{"tiers":{"batch":"half"}}}}`, 'providers.a.tiers.batch is "half"', "a multiplier"]
  ] as const)("fails at start with %s: the field, its value and what is allowed", ([text, said, allowed]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(withText(text))
      assert.strictEqual(error._tag, "InvalidSetting")
      assert.isTrue(error.message.startsWith(`prices.json: ${said}`), error.message)
      assert.include(error.allowed, allowed.replace("allowed is ", ""), error.message)
    })
  )
})
