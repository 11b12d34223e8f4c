import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as fc from "fast-check"
import { type Embeddings, OpenAi } from "@llm/openai"
import { type Journal, Scenario, Simulator } from "@llm/simulator"
import * as Property from "./support/Property.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent } = Upstream

const model = "text-embedding-3-small"

/** What cannot be read is asked for once more, and no further: it has been paid for. */
const readings = 2

const create = Effect.fnUntraced(function* (
  request: Partial<Embeddings.Request>,
  options?: Embeddings.CallOptions
) {
  const openai = yield* OpenAi.OpenAi
  return yield* openai.embeddings.create({ model, input: "Why is the sky blue?", ...request }, options)
})

const inputsOf = (entries: ReadonlyArray<Journal.Entry>): ReadonlyArray<ReadonlyArray<unknown>> =>
  entries.map(({ body }) =>
    typeof body === "object" && body !== null && "input" in body && Array.isArray(body.input)
      ? body.input
      : []
  )

/** A server that answers every request with this body. */
const answering = (body: unknown) =>
  RawServer.make(({ socket }) => socket.write(RawServer.response(200, JSON.stringify(body))))

const encoded = (...numbers: ReadonlyArray<number>) =>
  Buffer.from(Float32Array.from(numbers).buffer).toString("base64")

const list = (...data: ReadonlyArray<unknown>) => ({ object: "list", model: "served", data })

describe("create", () => {
  it.live("gives 1536 numbers of text-embedding-3-small, asked for as base64", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const reply = yield* create({})
      assert.lengthOf(reply.vectors, 1)
      assert.lengthOf(reply.vectors[0] ?? [], 1536)
      assert.approximately(Math.hypot(...(reply.vectors[0] ?? [])), 1, 1e-5)
      assert.strictEqual(reply.model, model)
      assert.deepInclude(reply.usage, { inputTokens: 6, outputTokens: 0, totalTokens: 6, exact: true })
      const [entry] = yield* journal.entries
      assert.strictEqual(entry?.path, "/v1/embeddings")
      assert.deepStrictEqual(entry?.body, {
        model,
        input: ["Why is the sky blue?"],
        encoding_format: "base64"
      })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("passes on dimensions and the user", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { vectors } = yield* create({ dimensions: 256, user: "ada" })
      assert.lengthOf(vectors[0] ?? [], 256)
      assert.deepInclude((yield* journal.entries)[0]?.body, { dimensions: 256, user: "ada" })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("takes a text, texts, tokens and lists of tokens", () =>
    Effect.gen(function* () {
      const count = (input: Embeddings.Request["input"]) =>
        Effect.map(create({ input }), ({ vectors }) => vectors.length)
      assert.strictEqual(yield* count("a"), 1)
      assert.strictEqual(yield* count(["a", "b"]), 2)
      assert.strictEqual(yield* count([1, 2, 3]), 1)
      assert.strictEqual(yield* count([[1, 2], [3]]), 2)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("an empty list needs no request", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      assert.deepInclude(yield* create({ input: [] }), { model, vectors: [] })
      assert.deepStrictEqual(yield* journal.entries, [])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("5,000 texts are three requests, in order and with the usage of all", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const input = Array.from({ length: 5000 }, (_, index) => `t${index}`)
      const { usage, vectors } = yield* create({ input, dimensions: 8 })
      const requests = inputsOf(yield* journal.entries)
      assert.sameMembers(
        requests.map(({ length }) => length),
        [2048, 2048, 904]
      )
      assert.lengthOf(vectors, 5000)
      for (const index of [0, 2047, 2048, 4096, 4999]) {
        const { vectors: single } = yield* create({ input: `t${index}`, dimensions: 8 })
        assert.deepStrictEqual(vectors[index], single[0])
      }
      assert.isTrue(usage.exact)
      assert.isAtLeast(usage.inputTokens, 10_000)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("no request has more than 300,000 tokens", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const input = Array.from({ length: 40 }, (_, index) => `${index} ${"word ".repeat(6400)}`)
      const { usage, vectors } = yield* create({ input, dimensions: 8 })
      assert.lengthOf(vectors, 40)
      assert.isAbove(usage.inputTokens, 40 * 6400)
      const requests = inputsOf(yield* journal.entries)
      assert.sameMembers(
        requests.map(({ length }) => length),
        [37, 3]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("at most four requests are on their way at once", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always("no-headers"))
      const input = Array.from({ length: 2048 * 6 }, () => "a")
      const fiber = yield* Effect.forkChild(create({ input }))
      yield* journal.awaitEntry(({ body, sequence }) => sequence === 4 && body !== undefined)
      assert.strictEqual(yield* journal.openRequests, 4)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitIdle
      assert.lengthOf(yield* journal.entries, 4)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a text with more tokens than it looks like is still answered", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const input = Array.from({ length: 40 }, () => " a".repeat(8000))
      const { usage, vectors } = yield* create({ input, dimensions: 8 })
      assert.lengthOf(vectors, 40)
      assert.strictEqual(usage.inputTokens, 320_000)
      const entries = yield* journal.entries
      assert.deepStrictEqual(
        entries.map(({ status }) => status),
        [400, 200, 200]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["status:400;code=max_tokens_per_request", "InvalidRequest"],
    ["status:413", "RequestTooLarge"],
    ["status:429;too-large", "RequestTooLarge"]
  ] as const)("halves what the server finds too large: %s", ([fault, tag]) =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.when(({ body }) => (sizeOf(body) > 3 ? fault : null)))
      const input = ["a", "b", "c", "d", "e", "f", "g"]
      const { usage, vectors } = yield* create({ input })
      const sizes = inputsOf(yield* journal.entries).map(({ length }) => length)
      assert.deepStrictEqual(sizes, [7, 4, 2, 2, 3])
      assert.strictEqual(usage.inputTokens, 7)
      yield* script(Scenario.none)
      assert.deepStrictEqual(vectors, (yield* create({ input })).vectors)
      yield* script(Scenario.always(fault))
      assert.strictEqual((yield* Effect.flip(create({ input: ["a"] })))._tag, tag)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it("splits any input so that each request keeps the limits, and joins it in order", () =>
    Property.holdsEffect(
      fc.record({
        input: fc.array(fc.nat({ max: 8000 }), { maxLength: 120 }),
        dimensions: fc.integer({ min: 1, max: 4 })
      }),
      ({ dimensions, input }) =>
        Effect.gen(function* () {
          const simulator = yield* Simulator.make()
          const lists = input.map((length, index) => Array.from({ length: length + 1 }, () => index))
          const openai = Upstream.at(simulator.url)
          const { usage, vectors } = yield* Effect.provide(create({ input: lists, dimensions }), openai)
          const total = lists.reduce((sum, { length }) => sum + length, 0)
          assert.strictEqual(usage.inputTokens, total)
          const entries = yield* simulator.journal.entries
          assert.isTrue(entries.every(({ status }) => status === 200))
          // No two neighbours would have fitted into one.
          assert.isAtMost(entries.length, Math.ceil((2 * total) / 300_000) + 1)
          const places = inputsOf(entries).flatMap((items) =>
            items.map((item) => (Array.isArray(item) ? item[0] : -1))
          )
          assert.sameMembers(
            places,
            input.map((_, index) => index)
          )
          assert.lengthOf(vectors, input.length)
          assert.isTrue(vectors.every(({ length }) => length === dimensions))
        }),
      10
    ))
})

const sizeOf = (body: unknown): number =>
  typeof body === "object" && body !== null && "input" in body && Array.isArray(body.input)
    ? body.input.length
    : 0

describe("an input that no server takes", () => {
  it.live.each([
    ["", "input", "is empty"],
    [["a", ""], "input[1]", "is empty"],
    [[[1], []], "input[1]", "is empty"],
    ["word ".repeat(8193), "input", "has more than 8192 tokens"],
    [["a", "12345 ".repeat(4097)], "input[1]", "has more than 8192 tokens"],
    [Array.from({ length: 8193 }, () => 1), "input", "has more than 8192 tokens"]
  ] as const)("fails before anything is sent (%#)", ([input, param, problem]) =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(create({ input }))
      assert.deepInclude(
        { ...error },
        {
          _tag: "InvalidRequest",
          operation: "embeddings.create",
          model,
          attempts: 0,
          param,
          detail: `nothing was sent, since ${param} ${problem}`
        }
      )
      assert.deepStrictEqual(yield* journal.entries, [])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is for the server to judge where it may be short enough, or the model is not OpenAI's", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      yield* create({ input: "word ".repeat(6000) })
      const long = yield* Effect.flip(create({ input: ["a", "! ".repeat(10_000)] }))
      assert.deepInclude({ ...long }, { _tag: "InvalidRequest", status: 400, attempts: 1 })
      const other = yield* Effect.flip(create({ model: "qwen3-embedding", input: "word ".repeat(9000) }))
      assert.strictEqual(other.attempts, 1)
      assert.lengthOf(yield* journal.entries, 3)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is named by its place in the whole input, whichever request it was in", () =>
    Effect.gen(function* () {
      const input = Array.from({ length: 2100 }, (_, index) => (index === 2060 ? "! ".repeat(10_000) : "a"))
      const error = yield* Effect.flip(create({ input }))
      assert.deepInclude(
        { ...error },
        {
          _tag: "InvalidRequest",
          attempts: 1,
          detail: "Invalid 'input[2060]': maximum input length is 8192 tokens."
        }
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("a reply", () => {
  it.live("is put in order by index, and may have numbers in place of base64", () =>
    Effect.gen(function* () {
      const server = yield* answering(
        list({ index: 1, embedding: [0.5, 0.25], extra: 1 }, { index: 0, embedding: encoded(1, -2) })
      )
      const {
        model: served,
        usage,
        vectors
      } = yield* create({ input: ["four", "five"] }).pipe(Effect.provide(Upstream.at(server.url)))
      assert.deepStrictEqual(vectors, [Float32Array.of(1, -2), Float32Array.of(0.5, 0.25)])
      assert.strictEqual(served, "served")
      // The server told none.
      assert.deepInclude(usage, { inputTokens: 2, totalTokens: 2, exact: false })
    })
  )

  it("holds every 32-bit float exactly", () =>
    Property.holdsEffect(
      fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 50 }),
      (numbers) =>
        Effect.gen(function* () {
          const server = yield* answering(list({ index: 0, embedding: encoded(...numbers) }))
          const { vectors } = yield* Effect.provide(create({}), Upstream.at(server.url))
          assert.deepStrictEqual(vectors, [Float32Array.from(numbers)])
        }),
      20
    ))

  it.live.each([
    [{}, "JSON that is not a list of embeddings"],
    [list({ index: 0, embedding: [null] }), "JSON that is not a list of embeddings"],
    [list(), "0 embeddings for 2 inputs"],
    [list({ index: 0, embedding: [1] }), "1 embeddings for 2 inputs"],
    [list({ index: 0, embedding: [1] }, { index: 0, embedding: [1] }), "no embedding with index 1"],
    [list({ index: 1, embedding: [1] }, { index: 2, embedding: [1] }), "no embedding with index 0"],
    [
      list({ index: 0, embedding: [1] }, { index: 1, embedding: [1, 2] }),
      "embedding 1 has 2 dimensions in place of 1"
    ],
    [
      list({ index: 0, embedding: [] }, { index: 1, embedding: [] }),
      "embedding 0 is no list of 32-bit numbers"
    ],
    [
      list({ index: 0, embedding: "" }, { index: 1, embedding: "" }),
      "embedding 0 is no list of 32-bit numbers"
    ],
    [
      list({ index: 0, embedding: "AAAA" }, { index: 1, embedding: "" }),
      "embedding 0 is no list of 32-bit numbers"
    ],
    [
      list({ index: 0, embedding: "!!!!!!==" }, { index: 1, embedding: "" }),
      "embedding 0 is no list of 32-bit numbers"
    ],
    [
      list({ index: 0, embedding: encoded(Number.NaN) }, { index: 1, embedding: "" }),
      "embedding 0 is no list of 32-bit numbers"
    ],
    [
      list({ index: 0, embedding: [1e39] }, { index: 1, embedding: [1] }),
      "embedding 0 is no list of 32-bit numbers"
    ]
  ] as const)("is malformed (%#)", ([body, detail]) =>
    Effect.gen(function* () {
      const server = yield* answering(body)
      const error = yield* Effect.flip(Effect.provide(create({ input: ["a", "b"] }), Upstream.at(server.url)))
      assert.deepInclude({ ...error }, { _tag: "MalformedResponse", status: 200, detail, attempts: readings })
    })
  )

  it.live("is malformed where it has not the dimensions that were asked for", () =>
    Effect.gen(function* () {
      const server = yield* answering(list({ index: 0, embedding: [1, 2] }))
      const error = yield* Effect.flip(Effect.provide(create({ dimensions: 3 }), Upstream.at(server.url)))
      assert.deepInclude({ ...error }, { detail: "embedding 0 has 2 dimensions in place of 3" })
    })
  )

  it.live("is malformed where its parts have different dimensions", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ number, socket }) => {
        const data = Array.from({ length: number === 1 ? 2048 : 1 }, (_, index) => ({
          index,
          embedding: number === 1 ? [1] : [1, 2]
        }))
        socket.write(RawServer.response(200, JSON.stringify(list(...data))))
      })
      const input = Array.from({ length: 2049 }, () => "a")
      const upstream = Upstream.at(server.url)
      const error = yield* Effect.flip(Effect.provide(create({ input }), upstream))
      assert.strictEqual(error._tag, "MalformedResponse")
    })
  )
})

describe("faults", () => {
  it.live.each([
    ["status:400", "InvalidRequest", 1],
    ["status:401", "Unauthorized", 1],
    ["status:403", "PermissionDenied", 1],
    ["status:404", "ModelNotFound", 1],
    ["status:408", "TimedOut", allAttempts],
    ["status:409", "Conflict", allAttempts],
    ["status:413", "RequestTooLarge", 1],
    ["status:422", "InvalidRequest", 1],
    ["status:429;code=insufficient_quota", "QuotaExhausted", 1],
    ["status:429;retry-after=120", "RateLimited", 1],
    ["status:429;retry-after-ms=1", "RateLimited", allAttempts],
    ["status:500", "ServerError", allAttempts],
    ["status:502;html", "ServerError", allAttempts],
    ["status:503", "Overloaded", allAttempts],
    ["status:504", "TimedOut", allAttempts],
    ["status:529", "Overloaded", allAttempts],
    ["html", "MalformedResponse", readings],
    ["empty", "MalformedResponse", readings],
    ["empty-choices", "MalformedResponse", readings],
    ["error-200", "ServerError", allAttempts],
    ["truncated-body", "ConnectionFailed", allAttempts],
    ["reset:headers", "ConnectionFailed", allAttempts],
    ["close:headers", "ConnectionFailed", allAttempts]
  ] as const)("%s", ([fault, tag, attempts]) =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always(fault))
      const error = yield* Effect.flip(create({}))
      assert.deepInclude({ ...error }, { _tag: tag, attempts, operation: "embeddings.create", model })
      assertSilent(error)
      assert.lengthOf(yield* journal.entries, attempts)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("one that passes is retried, for its own request alone", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(
        Scenario.where(
          ({ attempt, body }) => attempt === 0 && sizeOf(body) === 2,
          Scenario.always("status:503")
        )
      )
      const input = Array.from({ length: 2050 }, () => "a")
      assert.lengthOf((yield* create({ input, dimensions: 2 })).vectors, 2050)
      const sizes = inputsOf(yield* journal.entries).map(({ length }) => length)
      assert.sameMembers(sizes, [2048, 2, 2])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("one that does not pass ends the whole call, and gives the others up", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.when(({ body }) => (sizeOf(body) === 2 ? "status:400" : "no-headers")))
      const input = Array.from({ length: 2050 }, () => "a")
      assert.strictEqual((yield* Effect.flip(create({ input })))._tag, "InvalidRequest")
      yield* journal.awaitEntry(({ outcome }) => outcome === "client-left")
      yield* journal.awaitIdle
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("ends at the caller's deadline", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(create({}, { deadline: 1 }))
      assert.strictEqual(error._tag, "DeadlineExceeded")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})
