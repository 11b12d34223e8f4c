import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { type InvalidSetting, ResponseCache } from "@llm/core"
import { EmbeddingBatcher, OpenAi } from "@llm/openai"
import { type Journal, Scenario, Simulator } from "@llm/simulator"
import * as Property from "./support/Property.ts"
import * as Upstream from "./support/Upstream.ts"

const model = "text-embedding-3-small"

/** A batcher over a simulator of its own; the vectors are short, to be quick. */
const batching = (options?: Partial<EmbeddingBatcher.Options>) =>
  EmbeddingBatcher.layer({ model, dimensions: 16, ...options }).pipe(Layer.provideMerge(Upstream.simulated()))

/** Runs until the text is waited for. */
const ask = (text: string, options?: EmbeddingBatcher.CallOptions) =>
  Effect.flatMap(EmbeddingBatcher.EmbeddingBatcher, ({ embed }) =>
    Effect.forkChild(embed(text, options), { startImmediately: true })
  )

const askAll = (texts: ReadonlyArray<string>) => Effect.forEach(texts, (text) => ask(text))

/** What a text's vector is when it is asked for alone. */
const vectorsAlone = Effect.fnUntraced(function* (texts: ReadonlyArray<string>) {
  const openai = yield* OpenAi.OpenAi
  const { vectors } = yield* openai.embeddings.create({ model, input: texts, dimensions: 16 })
  return vectors
})

const inputOf = ({ body }: Journal.Entry): ReadonlyArray<unknown> =>
  typeof body === "object" && body !== null && "input" in body && Array.isArray(body.input) ? body.input : []

/** The texts of each request so far. */
const requests = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  return (yield* journal.entries).map(inputOf)
})

const sizes = Effect.map(requests, (all) => all.map(({ length }) => length))

/** Refuses what has such a text in it, without saying which. */
const refusing = (poison: string) =>
  Scenario.when(({ body }) => (JSON.stringify(body).includes(poison) ? "status:400" : null))

const textsOf = (count: number) => Array.from({ length: count }, (_, index) => `text ${index}`)

describe("a batch", () => {
  it.effect("is one request for all that ask within the window, and each gets their own vector", () =>
    Effect.gen(function* () {
      const texts = textsOf(300)
      const fibers = yield* askAll(texts)
      yield* TestClock.adjust("4 millis")
      assert.deepStrictEqual(yield* requests, [])
      yield* TestClock.adjust("1 millis")
      const vectors = yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(yield* requests, [texts])
      assert.deepStrictEqual(vectors, yield* vectorsAlone(texts))
    }).pipe(Effect.provide(batching()))
  )

  it.effect("waits as long as its window says, and not for those who come later", () =>
    Effect.gen(function* () {
      const first = yield* ask("first")
      yield* TestClock.adjust("19 millis")
      const second = yield* ask("second")
      yield* TestClock.adjust("1 millis")
      const third = yield* ask("third")
      yield* TestClock.adjust("20 millis")
      yield* Fiber.joinAll([first, second, third])
      assert.sameDeepMembers([...(yield* requests)], [["first", "second"], ["third"]])
    }).pipe(Effect.provide(batching({ window: "20 millis" })))
  )

  it.effect("sends equal texts once, and gives each caller a vector to keep", () =>
    Effect.gen(function* () {
      const fibers = yield* askAll(["same", "other", "same", "same"])
      yield* TestClock.adjust("5 millis")
      const [one, , two, three] = yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(yield* requests, [["same", "other"]])
      assert.deepStrictEqual(one, two)
      one?.fill(0)
      assert.deepStrictEqual(two, three)
      assert.notDeepEqual(one, two)
    }).pipe(Effect.provide(batching()))
  )

  it.effect("goes out at once when it is full", () =>
    Effect.gen(function* () {
      const fibers = yield* askAll(textsOf(10))
      yield* Fiber.joinAll(fibers.slice(0, 8))
      assert.sameMembers([...(yield* sizes)], [4, 4])
      yield* TestClock.adjust("5 millis")
      yield* Fiber.joinAll(fibers)
      assert.sameMembers([...(yield* sizes)], [4, 4, 2])
    }).pipe(Effect.provide(batching({ maxItems: 4 })))
  )

  it.effect("has no more tokens than it may", () =>
    Effect.gen(function* () {
      const fibers = yield* askAll(["aaaabbbb", "cccc", "ddddeeeeffff", "gggg"])
      yield* TestClock.adjust("5 millis")
      yield* Fiber.joinAll(fibers)
      assert.sameDeepMembers(
        [...(yield* requests)],
        [
          ["aaaabbbb", "cccc"],
          ["ddddeeeeffff", "gggg"]
        ]
      )
    }).pipe(Effect.provide(batching({ maxTokens: 4 })))
  )

  it.effect("is of one tenant", () =>
    Effect.gen(function* () {
      const fibers = yield* Effect.all([
        ask("a", { tenant: "acme" }),
        ask("b", { tenant: "bolt" }),
        ask("c", { tenant: "acme" }),
        ask("d")
      ])
      yield* TestClock.adjust("5 millis")
      yield* Fiber.joinAll(fibers)
      assert.sameDeepMembers([...(yield* requests)], [["a", "c"], ["b"], ["d"]])
    }).pipe(Effect.provide(batching()))
  )

  it.effect("of window 0 is what is asked for in one turn", () =>
    Effect.gen(function* () {
      yield* Fiber.joinAll(yield* askAll(["a", "b"]))
      assert.deepStrictEqual(yield* requests, [["a", "b"]])
    }).pipe(Effect.provide(batching({ window: 0 })))
  )
})

describe("a bad text", () => {
  it.effect("that is empty or too long fails alone, at once, and is not sent", () =>
    Effect.gen(function* () {
      const good = yield* ask("good")
      for (const text of ["", "word ".repeat(8193)]) {
        const error = yield* Effect.flip(Fiber.join(yield* ask(text)))
        assert.deepInclude({ ...error }, { _tag: "InvalidRequest", param: "input", attempts: 0 })
      }
      yield* TestClock.adjust("5 millis")
      yield* Fiber.join(good)
      assert.deepStrictEqual(yield* requests, [["good"]])
    }).pipe(Effect.provide(batching()))
  )

  it.effect("that the server names fails alone: two more requests", () =>
    Effect.gen(function* () {
      const long = "! ".repeat(10_000)
      const [first, bad, ...rest] = yield* askAll(["first", long, "third", "fourth", "fifth"])
      yield* TestClock.adjust("5 millis")
      assert.isDefined(bad)
      if (first === undefined || bad === undefined) return
      const error = yield* Effect.flip(Fiber.join(bad))
      assert.deepInclude(
        { ...error },
        { _tag: "InvalidRequest", detail: "Invalid 'input[0]': maximum input length is 8192 tokens." }
      )
      const vectors = yield* Fiber.joinAll([first, ...rest])
      assert.sameMembers([...(yield* sizes)], [5, 1, 4])
      assert.deepStrictEqual(vectors, yield* vectorsAlone(["first", "third", "fourth", "fifth"]))
    }).pipe(Effect.provide(batching()))
  )

  it.effect("that the server does not name is found by halves", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      yield* script(refusing("text 5"))
      const fibers = yield* askAll(textsOf(8))
      yield* TestClock.adjust("5 millis")
      const outcomes = yield* Effect.forEach(fibers, (fiber) => Effect.result(Fiber.join(fiber)))
      assert.deepStrictEqual(
        outcomes.map(({ _tag }) => _tag),
        textsOf(8).map((text) => (text === "text 5" ? "Failure" : "Success"))
      )
      assert.sameMembers([...(yield* sizes)], [8, 4, 4, 2, 2, 1, 1])
    }).pipe(Effect.provide(batching()))
  )

  it("fails alone wherever it is, however many there are", () =>
    Property.holdsEffect(
      fc.record({
        count: fc.integer({ min: 1, max: 24 }),
        bad: fc.uniqueArray(fc.nat({ max: 23 }), { maxLength: 4 })
      }),
      ({ bad, count }) =>
        Effect.gen(function* () {
          const { script } = yield* Simulator.Simulator
          yield* script(refusing("poison"))
          const texts = textsOf(count).map((text, index) => (bad.includes(index) ? `poison ${index}` : text))
          const fibers = yield* askAll(texts)
          yield* TestClock.adjust("5 millis")
          const outcomes = yield* Effect.forEach(fibers, (fiber) => Effect.result(Fiber.join(fiber)))
          yield* script(Scenario.none)
          const expected = yield* vectorsAlone(texts)
          outcomes.forEach((outcome, index) => {
            if (bad.includes(index))
              assert.isTrue(outcome._tag === "Failure" && outcome.failure._tag === "InvalidRequest")
            else
              assert.deepStrictEqual(
                outcome._tag === "Success" ? outcome.success : undefined,
                expected[index]
              )
          })
        }).pipe(Effect.provide(batching()), Effect.provide(TestClock.layer())),
      25
    ))

  it.effect("is not looked for for ever: 65 requests are the most", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.always("status:400"))
      const fibers = yield* askAll(textsOf(500))
      yield* TestClock.adjust("5 millis")
      for (const fiber of fibers)
        assert.strictEqual((yield* Effect.flip(Fiber.join(fiber)))._tag, "InvalidRequest")
      assert.isAtMost((yield* requests).length, 65)
    }).pipe(Effect.provide(batching()))
  )

  it.effect("is not looked for where the request itself is refused", () =>
    Effect.gen(function* () {
      const fibers = yield* askAll(textsOf(4))
      yield* TestClock.adjust("5 millis")
      for (const fiber of fibers) {
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 1 })
      }
      assert.deepStrictEqual(yield* sizes, [4])
    }).pipe(Effect.provide(batching({ dimensions: 2000 })))
  )
})

describe("an error of the whole batch", () => {
  it.effect("reaches every caller, after one request", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.always("status:401"))
      const fibers = yield* askAll(textsOf(3))
      yield* TestClock.adjust("5 millis")
      for (const fiber of fibers)
        assert.strictEqual((yield* Effect.flip(Fiber.join(fiber)))._tag, "Unauthorized")
      assert.deepStrictEqual(yield* sizes, [3])
    }).pipe(Effect.provide(batching()))
  )

  it.live("is retried by the pipe, for the batch as a whole", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:503"]))
      const vectors = yield* Fiber.joinAll(yield* askAll(["a", "b"]))
      assert.lengthOf(vectors, 2)
      assert.deepStrictEqual(yield* requests, [
        ["a", "b"],
        ["a", "b"]
      ])
    }).pipe(Effect.provide(batching()))
  )
})

describe("a caller who leaves", () => {
  it.effect("before the batch goes out takes their text along, and nobody else", () =>
    Effect.gen(function* () {
      const [first, second, third, fourth] = yield* askAll(["a", "b", "c", "b"])
      if (first === undefined || second === undefined || third === undefined || fourth === undefined) return
      // The first one opened the batch; the second one is not the only one who wants that text.
      yield* Fiber.interruptAll([first, second])
      yield* TestClock.adjust("5 millis")
      const vectors = yield* Fiber.joinAll([third, fourth])
      assert.deepStrictEqual(yield* requests, [["c", "b"]])
      assert.deepStrictEqual(vectors, yield* vectorsAlone(["c", "b"]))
    }).pipe(Effect.provide(batching()))
  )

  it.effect("makes room for another in a batch that is nearly full", () =>
    Effect.gen(function* () {
      const [first, second] = yield* askAll(["a", "b"])
      if (first === undefined || second === undefined) return
      yield* Fiber.interrupt(first)
      yield* Fiber.joinAll([second, yield* ask("c"), yield* ask("d")])
      assert.deepStrictEqual(yield* requests, [["b", "c", "d"]])
    }).pipe(Effect.provide(batching({ maxItems: 3 })))
  )

  it.effect("and is the last one leaves nothing to send", () =>
    Effect.gen(function* () {
      yield* Fiber.interruptAll(yield* askAll(["a", "b"]))
      yield* TestClock.adjust("5 millis")
      const later = yield* ask("c")
      yield* TestClock.adjust("5 millis")
      yield* Fiber.join(later)
      assert.deepStrictEqual(yield* requests, [["c"]])
    }).pipe(Effect.provide(batching()))
  )

  it.effect("while the batch is on its way does not cancel the others; the last one does", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always("no-headers"))
      const [first, second, third] = yield* askAll(["a", "b", "b"])
      if (first === undefined || second === undefined || third === undefined) return
      yield* TestClock.adjust("5 millis")
      yield* journal.awaitEntry(({ body }) => body !== undefined)
      yield* Fiber.interruptAll([first, second])
      assert.strictEqual(yield* journal.openRequests, 1)
      assert.isUndefined(third.pollUnsafe())
      yield* Fiber.interrupt(third)
      yield* journal.awaitEntry(({ outcome }) => outcome === "client-left")
      yield* journal.awaitIdle
      assert.deepStrictEqual(yield* requests, [["a", "b"]])
    }).pipe(Effect.provide(batching()))
  )

  it.effect("while the batch is on its way costs the others nothing", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always("slow-headers:50"))
      const [first, second] = yield* askAll(["a", "b"])
      if (first === undefined || second === undefined) return
      yield* TestClock.adjust("5 millis")
      yield* journal.awaitEntry(({ body }) => body !== undefined)
      yield* Fiber.interrupt(first)
      const vector = yield* Fiber.join(second)
      assert.deepStrictEqual(yield* requests, [["a", "b"]])
      yield* script(Scenario.none)
      assert.deepStrictEqual([vector], [...(yield* vectorsAlone(["b"]))])
    }).pipe(Effect.provide(batching()))
  )
})

type Step =
  | { readonly _tag: "Ask"; readonly text: string; readonly tenant: string }
  | { readonly _tag: "Wait"; readonly millis: number }
  | { readonly _tag: "Leave"; readonly back: number }

const steps = fc.array(
  fc.oneof(
    {
      weight: 6,
      // The n-th text has n tokens.
      arbitrary: fc.record({
        _tag: fc.constant("Ask" as const),
        text: fc.integer({ min: 1, max: 9 }).map((tokens) => `${tokens}`.repeat(tokens * 4)),
        tenant: fc.constantFrom("acme", "bolt")
      })
    },
    {
      weight: 2,
      arbitrary: fc.record({ _tag: fc.constant("Wait" as const), millis: fc.integer({ min: 1, max: 6 }) })
    },
    { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Leave" as const), back: fc.nat({ max: 3 }) }) }
  ),
  { minLength: 1, maxLength: 40, size: "max" }
)

interface ModelBatch {
  readonly due: number
  readonly tenant: string
  readonly callers: Array<{ readonly nth: number; readonly text: string }>
}

/** The batches, as a slow and plain reading of the documentation has them. */
const batchesOf = (
  list: ReadonlyArray<Step>,
  maxItems: number,
  maxTokens: number
): { readonly sent: ReadonlyArray<ReadonlyArray<string>>; readonly left: ReadonlySet<number> } => {
  const sent: Array<ReadonlyArray<string>> = []
  const left = new Set<number>()
  let waiting: ReadonlyArray<ModelBatch> = []
  const open = new Map<string, ModelBatch>()
  let now = 0
  let count = 0
  const textsIn = (batch: ModelBatch) => [...new Set(batch.callers.map(({ text }) => text))]
  const tokensIn = (texts: ReadonlyArray<string>) => texts.reduce((sum, text) => sum + text.length / 4, 0)
  const done = (batch: ModelBatch) => {
    waiting = waiting.filter((other) => other !== batch)
    if (open.get(batch.tenant) === batch) open.delete(batch.tenant)
    if (batch.callers.length > 0) sent.push(textsIn(batch))
  }
  for (const step of [...list, { _tag: "Wait" as const, millis: 5 }]) {
    if (step._tag === "Wait") {
      now += step.millis
      for (const batch of waiting) if (batch.due <= now) done(batch)
    } else if (step._tag === "Ask") {
      const nth = count++
      const before = open.get(step.tenant)
      const after = before === undefined ? [] : [...new Set([...textsIn(before), step.text])]
      const fits = after.length === 0 || (after.length <= maxItems && tokensIn(after) <= maxTokens)
      let batch = before
      // A text that is there already takes no room.
      if (batch === undefined || (!fits && !textsIn(batch).includes(step.text))) {
        batch = { due: now + 5, tenant: step.tenant, callers: [] }
        waiting = [...waiting, batch]
        open.set(step.tenant, batch)
      }
      batch.callers.push({ nth, text: step.text })
      const texts = textsIn(batch)
      if (texts.length >= maxItems || tokensIn(texts) >= maxTokens) done(batch)
    } else {
      const leaving = count - 1 - step.back
      const batch = waiting.find(({ callers }) => callers.some(({ nth }) => nth === leaving))
      if (batch === undefined) continue
      left.add(leaving)
      batch.callers.splice(
        batch.callers.findIndex(({ nth }) => nth === leaving),
        1
      )
      if (batch.callers.length === 0) done(batch)
    }
  }
  return { sent, left }
}

describe("any interleaving", () => {
  it("gives each caller their own vector, in exactly the requests that the limits ask for", () =>
    Property.holdsEffect(
      fc.record({
        list: steps,
        maxItems: fc.integer({ min: 1, max: 6 }),
        maxTokens: fc.integer({ min: 1, max: 25 })
      }),
      ({ list, maxItems, maxTokens }) =>
        Effect.gen(function* () {
          const { sent, left } = batchesOf(list, maxItems, maxTokens)
          const callers: Array<{
            readonly text: string
            readonly fiber: Effect.Success<ReturnType<typeof ask>>
          }> = []
          for (const step of list) {
            if (step._tag === "Ask") {
              callers.push({ text: step.text, fiber: yield* ask(step.text, { tenant: step.tenant }) })
            } else if (step._tag === "Wait") {
              yield* TestClock.adjust(step.millis)
            } else {
              // Who is served already is not asked to leave: that would be a race with the network.
              const leaving = callers.length - 1 - step.back
              const caller = callers[leaving]
              if (left.has(leaving) && caller !== undefined) yield* Fiber.interrupt(caller.fiber)
            }
          }
          yield* TestClock.adjust(5)
          const staying = callers.filter((_, nth) => !left.has(nth))
          const vectors = yield* Fiber.joinAll(staying.map(({ fiber }) => fiber))
          const made = yield* requests
          assert.sameDeepMembers([...made], [...sent])
          assert.lengthOf(made, sent.length)
          const texts = [...new Set(staying.map(({ text }) => text))]
          const known = new Map((yield* vectorsAlone(texts)).map((vector, index) => [texts[index], vector]))
          staying.forEach(({ text }, index) => assert.deepStrictEqual(vectors[index], known.get(text)))
        }).pipe(Effect.provide(batching({ maxItems, maxTokens })), Effect.provide(TestClock.layer())),
      40
    ))
})

describe("layerNone", () => {
  it.live("sends each text alone, and at once", () =>
    Effect.gen(function* () {
      const vectors = yield* Fiber.joinAll(yield* askAll(["a", "b", "a"]))
      assert.sameDeepMembers([...(yield* requests)], [["a"], ["b"], ["a"]])
      assert.deepStrictEqual(vectors, yield* vectorsAlone(["a", "b", "a"]))
    }).pipe(
      Effect.provide(
        EmbeddingBatcher.layerNone({ model, dimensions: 16 }).pipe(Layer.provideMerge(Upstream.simulated()))
      )
    )
  )
})

describe("settings", () => {
  const problem = (
    layer: Layer.Layer<EmbeddingBatcher.EmbeddingBatcher, InvalidSetting.InvalidSetting, OpenAi.OpenAi>
  ) =>
    Effect.scoped(Layer.build(Layer.provide(layer, Upstream.at("http://127.0.0.1:9/v1")))).pipe(
      Effect.flip,
      Effect.map((error) => error.message)
    )

  it.effect.each([
    [{ model: "" }, 'EmbeddingBatcher.layer: model is ""; allowed is a model\'s name'],
    [
      { dimensions: 0 },
      "EmbeddingBatcher.layer: dimensions is 0; allowed is a whole number from 1 to 100000"
    ],
    [{ maxItems: 0 }, "EmbeddingBatcher.layer: maxItems is 0; allowed is a whole number from 1 to 2048"],
    [
      { maxItems: 2049 },
      "EmbeddingBatcher.layer: maxItems is 2049; allowed is a whole number from 1 to 2048"
    ],
    [
      { maxTokens: 1.5 },
      "EmbeddingBatcher.layer: maxTokens is 1.5; allowed is a whole number from 1 to 300000"
    ],
    [
      { window: -1 },
      'EmbeddingBatcher.layer: window is -1; allowed is a duration from 0 to 60000 ms, such as "10 seconds"'
    ],
    [
      { window: "2 minutes" },
      'EmbeddingBatcher.layer: window is "2 minutes"; allowed is a duration from 0 to 60000 ms, such as "10 seconds"'
    ]
  ] as const)("%j cannot be", ([options, message]) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* problem(EmbeddingBatcher.layer({ model, ...options })), message)
    })
  )

  it.effect("of layerNone are the model's alone", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* problem(EmbeddingBatcher.layerNone({ model, dimensions: -1 })),
        "EmbeddingBatcher.layerNone: dimensions is -1; allowed is a whole number from 1 to 100000"
      )
    })
  )
})

describe("layerSemanticCache", () => {
  it.live("answers a related question with the answer to the earlier one", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const openai = yield* OpenAi.OpenAi
      const question = (content: string) =>
        Effect.scoped(
          openai.raw({
            operation: "chat.create",
            method: "post",
            path: "/chat/completions",
            body: JSON.stringify({ model: "gpt-6-luna", messages: [{ role: "user", content }] }),
            model: "gpt-6-luna",
            stream: false
          })
        )
      const first = yield* question("How can I reset my password?")
      const similar = yield* question("How can I reset the password?")
      const other = yield* question("When does the ferry leave?")
      assert.deepStrictEqual(
        [first, similar, other].map(({ outcome }) => outcome),
        ["miss", "similar", "miss"]
      )
      assert.deepStrictEqual(similar._tag === "Whole" && similar.body, first._tag === "Whole" && first.body)
      const paths = (yield* journal.entries).map(({ path }) => path)
      assert.strictEqual(paths.filter((path) => path === "/v1/chat/completions").length, 2)
      assert.strictEqual(paths.filter((path) => path === "/v1/embeddings").length, 3)
    }).pipe(
      Effect.provide(
        Upstream.toSimulator().pipe(
          Layer.provide(EmbeddingBatcher.layerSemanticCache({ threshold: 0.75 })),
          Layer.provide(EmbeddingBatcher.layer({ model })),
          Layer.provide(Upstream.toSimulator()),
          Layer.provide(ResponseCache.layerMemory()),
          Layer.provideMerge(Simulator.layer())
        )
      )
    )
  )
})
