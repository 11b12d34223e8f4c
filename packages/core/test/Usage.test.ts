import { Usage } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const anyCount = fc.option(
  fc.oneof(fc.integer(), fc.nat(), fc.double({ noNaN: true, noDefaultInfinity: true })),
  {
    freq: 5
  }
)
const details = fc.option(
  fc.record({ cached_tokens: anyCount, cache_write_tokens: anyCount }, { requiredKeys: [] })
)
const wire = fc.record(
  {
    prompt_tokens: anyCount,
    completion_tokens: anyCount,
    input_tokens: anyCount,
    output_tokens: anyCount,
    total_tokens: anyCount,
    prompt_tokens_details: details,
    input_tokens_details: details,
    completion_tokens_details: fc.option(fc.record({ reasoning_tokens: anyCount }, { requiredKeys: [] })),
    output_tokens_details: fc.option(fc.record({ reasoning_tokens: anyCount }, { requiredKeys: [] }))
  },
  { requiredKeys: [] }
)

const anyUsage: fc.Arbitrary<Usage.Usage> = fc
  .record({
    inputTokens: fc.nat(),
    outputTokens: fc.nat(),
    totalTokens: fc.nat(),
    cachedTokens: fc.nat(),
    cacheWriteTokens: fc.nat(),
    reasoningTokens: fc.nat(),
    serviceTier: fc.constantFrom("default", "flex", "priority"),
    exact: fc.boolean()
  })
  .map(({ serviceTier, ...usage }) => (serviceTier === "default" ? usage : { ...usage, serviceTier }))

describe("Usage", () => {
  it("reads the usage of Chat Completions", () => {
    assert.deepStrictEqual(
      Usage.fromWire({
        prompt_tokens: 100,
        completion_tokens: 50,
        total_tokens: 150,
        prompt_tokens_details: { cached_tokens: 64, cache_write_tokens: 20, audio_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 30, accepted_prediction_tokens: 0 },
        something_new: { deep: true }
      }),
      {
        inputTokens: 100,
        outputTokens: 50,
        totalTokens: 150,
        cachedTokens: 64,
        cacheWriteTokens: 20,
        reasoningTokens: 30,
        exact: true
      }
    )
  })

  it("reads the usage of Responses", () => {
    assert.deepStrictEqual(
      Usage.fromWire({
        input_tokens: 10,
        input_tokens_details: { cached_tokens: 4 },
        output_tokens: 5,
        output_tokens_details: { reasoning_tokens: 2 },
        total_tokens: 15
      }),
      {
        ...Usage.zero,
        inputTokens: 10,
        outputTokens: 5,
        totalTokens: 15,
        cachedTokens: 4,
        reasoningTokens: 2
      }
    )
  })

  it("reads the usage of the Realtime API, which has spellings of its own", () => {
    assert.deepInclude(
      Usage.fromWire({
        total_tokens: 253,
        input_tokens: 132,
        output_tokens: 121,
        input_token_details: { text_tokens: 119, audio_tokens: 13, cached_tokens: 64 },
        output_token_details: { text_tokens: 30, audio_tokens: 91 }
      }),
      {
        inputTokens: 132,
        outputTokens: 121,
        cachedTokens: 64,
        audioInputTokens: 13,
        audioOutputTokens: 91,
        exact: true
      }
    )
  })

  it("reads the usage of embeddings, which generate nothing", () => {
    assert.deepStrictEqual(Usage.fromWire({ prompt_tokens: 8, total_tokens: 8 }), {
      ...Usage.zero,
      inputTokens: 8,
      totalTokens: 8
    })
  })

  it.each([
    undefined,
    null,
    "12",
    12,
    [],
    {},
    { prompt_tokens: "12" },
    { prompt_tokens: null },
    { total: 3 }
  ])("says that %j is no usage at all, rather than that nothing was used", (value) => {
    assert.isUndefined(Usage.fromWire(value))
  })

  it.each([
    ["a total below the sum", { prompt_tokens: 10, completion_tokens: 5, total_tokens: 1 }, 15],
    ["a total above the sum", { prompt_tokens: 10, completion_tokens: 5, total_tokens: 99 }, 99],
    ["only a total", { total_tokens: 99 }, 99],
    ["negative prompt tokens", { prompt_tokens: -10, completion_tokens: 5 }, 5],
    ["a negative total", { prompt_tokens: 10, completion_tokens: 5, total_tokens: -1 }, 15],
    [
      "more cached than prompt tokens",
      { prompt_tokens: 10, prompt_tokens_details: { cached_tokens: 11 } },
      10
    ],
    ["negative cached tokens", { prompt_tokens: 10, prompt_tokens_details: { cached_tokens: -1 } }, 10],
    [
      "more written to the cache than sent",
      { input_tokens: 10, input_tokens_details: { cache_write_tokens: 11 } },
      10
    ],
    ["more reasoning than output", { output_tokens: 10, output_tokens_details: { reasoning_tokens: 11 } }, 10]
  ] as const)("clamps and marks as not exact: %s", (_, value, total) => {
    const usage = Usage.fromWire(value)
    assert.isFalse(usage?.exact)
    assert.strictEqual(usage?.totalTokens, total)
  })

  it("never lets a budget gain: counts are whole, not negative, and add up", () => {
    Property.holds(
      wire,
      (value) => {
        const usage = Usage.fromWire(value)
        if (usage === undefined) return
        const { exact, ...counts } = usage
        for (const count of Object.values(counts))
          assert.isTrue(Number.isInteger(count) && Number(count) >= 0)
        assert.isAtLeast(usage.totalTokens, usage.inputTokens + usage.outputTokens)
        assert.isAtMost(usage.cachedTokens, usage.inputTokens)
        assert.isAtMost(usage.cacheWriteTokens, usage.inputTokens)
        assert.isAtMost(usage.reasoningTokens, usage.outputTokens)
        if (exact) assert.strictEqual(usage.totalTokens, usage.inputTokens + usage.outputTokens)
      },
      1000
    )
  })

  it("is the same whether the schema has judged it or an ordinary shape went past it, whatever comes", () => {
    /** With another prototype nothing is of an ordinary shape. */
    const judged = (value: unknown): unknown =>
      typeof value !== "object" || value === null || Array.isArray(value)
        ? value
        : Object.assign(
            Object.create({}),
            Object.fromEntries(Object.entries(value).map(([name, inside]) => [name, judged(inside)]))
          )
    const odd = fc.oneof(
      { weight: 6, arbitrary: anyCount },
      fc.constantFrom(
        undefined,
        Number.NaN,
        Infinity,
        -Infinity,
        -0,
        1e15,
        1e15 + 1,
        2 ** 53,
        0.5,
        "7",
        true
      ),
      fc.jsonValue({ maxDepth: 2 })
    )
    const counts = <Name extends string>(...names: ReadonlyArray<Name>) =>
      fc.dictionary(fc.oneof({ weight: 9, arbitrary: fc.constantFrom<string>(...names) }, fc.string()), odd, {
        maxKeys: 5
      })
    const inputs = fc.oneof(
      { weight: 5, arbitrary: counts("cached_tokens", "cache_write_tokens", "audio_tokens") },
      odd
    )
    const outputs = fc.oneof({ weight: 5, arbitrary: counts("reasoning_tokens", "audio_tokens") }, odd)
    const hostile = fc
      .tuple(
        counts(
          "prompt_tokens",
          "completion_tokens",
          "input_tokens",
          "output_tokens",
          "total_tokens",
          "seconds"
        ),
        fc.record(
          {
            estimated: fc.oneof(fc.boolean(), odd),
            prompt_tokens_details: inputs,
            input_tokens_details: inputs,
            input_token_details: inputs,
            completion_tokens_details: outputs,
            output_tokens_details: outputs,
            output_token_details: outputs
          },
          { requiredKeys: [] }
        )
      )
      .map(([one, other]) => ({ ...one, ...other }))
    const tool = fc.record(
      {
        type: fc.constantFrom("web_search_call", "file_search_call", "code_interpreter_call", "message", 7),
        status: fc.constantFrom("completed", "failed", null),
        container_id: fc.constantFrom("one", "other"),
        action: fc.oneof(fc.record({ type: fc.constantFrom("search", "find", "open_page") }), odd)
      },
      { requiredKeys: [] }
    )
    Property.holds(
      fc.record({
        usage: fc.oneof({ weight: 4, arbitrary: wire }, { weight: 4, arbitrary: hostile }, fc.jsonValue()),
        service_tier: fc.constantFrom("flex", "", null, 7),
        output: fc.oneof(fc.array(fc.oneof(tool, odd), { maxLength: 4 }), odd)
      }),
      (reply) => {
        const read = Usage.fromWire(reply.usage)
        assert.deepStrictEqual(read, Usage.fromWire(judged(reply.usage)))
        const { output } = reply
        const other = {
          ...reply,
          usage: judged(reply.usage),
          output: Array.isArray(output) ? output.map(judged) : output
        }
        assert.deepStrictEqual(Usage.fromReply(reply), Usage.fromReply(other))
      },
      3000
    )
  })

  it("reads the tier that served a reply, and what its tools did that is billed", () => {
    const usage = { input_tokens: 3, output_tokens: 4, total_tokens: 7 }
    const tokens = Usage.fromWire(usage) ?? Usage.zero
    const container = (id: string) => ({
      type: "code_interpreter_call",
      status: "completed",
      container_id: id
    })
    const output = [
      { type: "web_search_call", status: "completed", action: { type: "search", query: "q" } },
      {
        type: "web_search_call",
        status: "completed",
        action: { type: "open_page", url: "https://example.com" }
      },
      { type: "web_search_call", status: "failed", action: { type: "search" } },
      { type: "file_search_call", status: "completed", queries: ["a", "b"] },
      container("one"),
      container("one"),
      container("two"),
      { type: "message", content: [] },
      null
    ]
    const toolCalls = { webSearch: 1, fileSearch: 1 }
    const reply = { service_tier: "flex", output, usage }
    assert.deepStrictEqual(Usage.fromReply(reply), {
      ...tokens,
      serviceTier: "flex",
      toolCalls: { ...toolCalls, container: 2 }
    })
    const sized = {
      ...reply,
      tools: [{ type: "code_interpreter", container: { type: "auto", memory_limit: "4g" } }]
    }
    assert.deepStrictEqual(Usage.fromReply(sized)?.toolCalls, { ...toolCalls, largeContainer: 2 })
    for (const plain of [
      { usage },
      { usage, service_tier: null, output: null },
      { usage, service_tier: 7, output: [] }
    ]) {
      assert.deepStrictEqual(Usage.fromReply(plain), tokens)
    }
    for (const none of [null, "text", {}, { usage: null, service_tier: "flex", output }]) {
      assert.isUndefined(Usage.fromReply(none))
    }
  })

  it("adds calls of tools up; a sum over two tiers is of neither", () => {
    const one = { ...Usage.zero, totalTokens: 1, serviceTier: "flex", toolCalls: { webSearch: 1 } }
    const other = { ...one, serviceTier: "priority", toolCalls: { webSearch: 2, fileSearch: 3 } }
    assert.deepInclude(Usage.add(one, other), {
      serviceTier: "mixed",
      toolCalls: { webSearch: 3, fileSearch: 3 }
    })
    assert.strictEqual(Usage.add(one, one).serviceTier, "flex")
  })

  it("adds like numbers do: zero changes nothing, order does not matter, one estimate taints the sum", () => {
    Property.holds(fc.tuple(anyUsage, anyUsage, anyUsage), ([a, b, c]) => {
      assert.deepStrictEqual(Usage.add(a, Usage.zero), a)
      assert.deepStrictEqual(Usage.add(a, b), Usage.add(b, a))
      assert.deepStrictEqual(Usage.add(Usage.add(a, b), c), Usage.add(a, Usage.add(b, c)))
      assert.strictEqual(Usage.add(a, b).exact, a.exact && b.exact)
    })
  })
})
