import { Cost, PriceCatalogue, Usage } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const now = Date.UTC(2026, 10, 21, 12)
const price = (
  rates: PriceCatalogue.Rates,
  more: Partial<PriceCatalogue.Price> = {}
): PriceCatalogue.Price => ({
  provider: "p",
  model: "m",
  effectiveFrom: undefined,
  source: "test",
  snapshot: "s",
  rates,
  long: undefined,
  factor: 1_000_000,
  ...more
})

/** Whatever a provider may send: wrong, contradictory, enormous. */
const anyCount = fc.option(
  fc.oneof(fc.nat(1000), fc.integer(), fc.maxSafeNat(), fc.double({ noNaN: true, noDefaultInfinity: true })),
  { freq: 5 }
)
const details = fc.option(
  fc.record(
    {
      cached_tokens: anyCount,
      cache_write_tokens: anyCount,
      audio_tokens: anyCount,
      reasoning_tokens: anyCount
    },
    { requiredKeys: [] }
  )
)
const anyWire = fc.record(
  {
    prompt_tokens: anyCount,
    completion_tokens: anyCount,
    input_tokens: anyCount,
    output_tokens: anyCount,
    total_tokens: anyCount,
    seconds: anyCount,
    prompt_tokens_details: details,
    input_tokens_details: details,
    input_token_details: details,
    completion_tokens_details: details,
    output_tokens_details: details
  },
  { requiredKeys: [] }
)
const anyRates = fc.record({
  input: fc.nat(),
  cachedInput: fc.nat(),
  cacheWrite: fc.nat(),
  output: fc.nat(),
  reasoning: fc.nat(),
  audioInput: fc.nat(),
  audioOutput: fc.nat(),
  audioHour: fc.maxSafeNat()
})

const anyTools = fc.record({
  webSearch: fc.nat(),
  fileSearch: fc.nat(),
  container: fc.nat(),
  largeContainer: fc.nat()
})

const sum = (values: ReadonlyArray<bigint>) => values.reduce((total, value) => total + value, 0n)

describe("tokensOf", () => {
  it("takes every usage apart into classes that sum to its total, whatever the provider sends", () => {
    Property.holds(
      fc.tuple(anyWire, fc.constantFrom("chat.create", "embeddings.create")),
      ([wire, operation]) => {
        const usage = Usage.fromWire(wire)
        if (usage === undefined) return
        const tokens = Cost.tokensOf(usage, operation)
        for (const count of Object.values(tokens)) assert.isTrue(Number.isSafeInteger(count) && count >= 0)
        const { audioOutput, output, reasoning, unattributed, ...inputs } = tokens
        assert.strictEqual(sum(Object.values(inputs).map(BigInt)), BigInt(usage.inputTokens))
        assert.strictEqual(output + reasoning + audioOutput, usage.outputTokens)
        assert.strictEqual(sum(Object.values(tokens).map(BigInt)), BigInt(usage.totalTokens))
        assert.strictEqual(unattributed, usage.totalTokens - usage.inputTokens - usage.outputTokens)
      },
      2000
    )
  })

  it("does so even with a usage that nobody read from a wire", () => {
    const count = fc.oneof(fc.nat(100), fc.integer(), fc.double())
    Property.holds(
      fc.record({
        inputTokens: count,
        outputTokens: count,
        totalTokens: count,
        cachedTokens: count,
        cacheWriteTokens: count,
        reasoningTokens: count,
        audioInputTokens: count,
        audioOutputTokens: count,
        exact: fc.boolean()
      }),
      (usage) => {
        for (const tokens of Object.values(Cost.tokensOf(usage))) {
          assert.isTrue(Number.isSafeInteger(tokens) && tokens >= 0)
        }
      },
      1000
    )
  })

  it("tells cached, written, sound and reasoning apart", () => {
    const usage = Usage.fromWire({
      prompt_tokens: 100,
      prompt_tokens_details: { cached_tokens: 40, cache_write_tokens: 20, audio_tokens: 10 },
      completion_tokens: 50,
      completion_tokens_details: { reasoning_tokens: 20, audio_tokens: 25 },
      total_tokens: 150
    })
    assert.deepStrictEqual(usage === undefined ? undefined : Cost.tokensOf(usage), {
      input: 30,
      cachedInput: 40,
      cacheWrite: 20,
      audioInput: 10,
      embedding: 0,
      output: 5,
      reasoning: 20,
      audioOutput: 25,
      unattributed: 0
    })
  })
})

describe("make", () => {
  it("is the sum of its parts, to the pico-dollar, on any terms", () => {
    Property.holds(
      fc.tuple(
        anyWire,
        anyRates,
        fc.oneof(fc.constant(1_000_000), fc.integer({ min: 1, max: 5_000_000 })),
        anyTools,
        anyTools
      ),
      ([wire, rates, factor, toolCalls, tools]) => {
        const counted = Usage.fromWire(wire)
        if (counted === undefined) return
        const usage = { ...counted, toolCalls }
        const cost = Result.getOrThrow(Cost.make(usage, price(rates, { factor, tools })))
        const fees = Usage.tools.map((tool) => BigInt(toolCalls[tool]) * BigInt(tools[tool]))
        assert.strictEqual(cost.parts.toolCalls, sum(fees))
        // As exact as with big integers alone.
        const tokens = Cost.tokensOf(usage)
        const input = BigInt(tokens.input) * BigInt(factor) * BigInt(rates.input)
        assert.strictEqual(cost.parts.input, (input + 999_999n) / 1_000_000n)
        assert.strictEqual(cost.total, sum(Object.values(cost.parts)))
        for (const part of Object.values(cost.parts)) assert.isTrue(part >= 0n)
        assert.strictEqual(cost.exact, usage.exact)
      },
      1000
    )
  })

  it("has no price for a tool without one", () => {
    const usage = { ...Usage.zero, toolCalls: { webSearch: 1, largeContainer: 1 } }
    const cost = Cost.make(usage, price({ input: 1 }, { tools: { webSearch: 10, fileSearch: 2 } }))
    assert.strictEqual(Result.isFailure(cost) && cost.failure.unknown, "usage")
    assert.isTrue(Result.isFailure(Cost.make(usage, price({ input: 1 }))))
  })

  it("bills tokens that only the total knows of, as output", () => {
    const usage = { ...Usage.zero, inputTokens: 10, outputTokens: 5, totalTokens: 115, exact: false }
    const cost = Result.getOrThrow(Cost.make(usage, price({ input: 1, output: 10 })))
    assert.strictEqual(cost.parts.unattributed, 1000n)
    assert.strictEqual(cost.total, 1060n)
    assert.isFalse(cost.exact)
  })

  it("bills an embedding's prompt as such, and sound by its length", () => {
    const embedding = { ...Usage.zero, inputTokens: 1000, totalTokens: 1000 }
    const small = Result.getOrThrow(PriceCatalogue.builtIn.priceOf("text-embedding-3-small", "openai", now))
    const embedded = Result.getOrThrow(Cost.make(embedding, small, "embeddings.create"))
    assert.strictEqual(embedded.parts.embedding, 20_000_000n)
    assert.strictEqual(embedded.total, 20_000_000n)

    const heard = Usage.fromWire({ type: "duration", seconds: 90 })
    const whisper = Result.getOrThrow(PriceCatalogue.builtIn.priceOf("whisper-1", "openai", now))
    assert.strictEqual(heard?.audioSeconds, 90)
    // $0.36 an hour.
    assert.strictEqual(Result.getOrThrow(Cost.make(heard ?? Usage.zero, whisper)).total, 9_000_000_000n)
  })

  it("has no price for sound at a model that is priced for text alone", () => {
    const usage = { ...Usage.zero, inputTokens: 10, totalTokens: 10, audioInputTokens: 5 }
    const result = Cost.make(usage, price({ input: 1, output: 1 }))
    assert.strictEqual(Result.isFailure(result) ? result.failure.unknown : "priced", "usage")
    const seconds = Cost.make({ ...Usage.zero, audioSeconds: 1 }, price({ input: 1, output: 1 }))
    assert.isTrue(Result.isFailure(seconds))
  })

  it("rounds up what is no whole pico-dollar, once for each part", () => {
    const usage = { ...Usage.zero, inputTokens: 3, outputTokens: 3, totalTokens: 6 }
    const cost = Result.getOrThrow(Cost.make(usage, price({ input: 1, output: 1 }, { factor: 500_000 })))
    assert.deepStrictEqual([cost.parts.input, cost.parts.output, cost.total], [2n, 2n, 4n])
  })
})

describe("worstCase", () => {
  it("is never less than the real cost of as many tokens", () => {
    const counts = fc.record({ input: fc.nat(400_000), output: fc.nat(200_000) })
    const share = fc.double({ min: 0, max: 1, noNaN: true })
    Property.holds(
      fc.tuple(
        counts,
        share,
        share,
        share,
        share,
        fc.constantFrom("gpt-6-luna", "gpt-5.6-sol", "gpt-4o", "gpt-audio")
      ),
      ([{ input, output }, cached, written, reasoning, sound, model]) => {
        const one = Result.getOrThrow(PriceCatalogue.builtIn.priceOf(model, "openai", now))
        const usage: Usage.Usage = {
          ...Usage.zero,
          inputTokens: input,
          outputTokens: output,
          totalTokens: input + output,
          cachedTokens: Math.floor(input * cached),
          cacheWriteTokens: Math.floor(input * written),
          reasoningTokens: Math.floor(output * reasoning),
          ...(model === "gpt-audio" ? { audioInputTokens: Math.floor(input * sound) } : {})
        }
        const cost = Result.getOrThrow(Cost.make(usage, one)).total
        assert.isTrue(cost <= Result.getOrThrow(Cost.worstCase(one, input, output)))
      }
    )
  })
})

describe("toMicroDollars and format", () => {
  it("rounds up, and never shows a false zero", () => {
    assert.deepStrictEqual([0n, 1n, 1_000_000n, 1_000_001n].map(Cost.toMicroDollars), [0n, 1n, 1n, 2n])
    assert.strictEqual(Cost.format(0n), "$0.0000")
    assert.strictEqual(Cost.format(1n), "< $0.0001")
    assert.strictEqual(Cost.format(600_000_000n), "$0.0006")
    assert.strictEqual(Cost.format(12_345_000_000_000n), "$12.35")
  })
})
