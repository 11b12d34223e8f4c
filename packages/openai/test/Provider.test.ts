import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted, Stream } from "effect"
import { Backoff, CircuitBreaker, Rescue, Resilience, RetryBudget, Router, Timeouts } from "@llm/core"
import { Dialect, OpenAi, Provider } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const model = "gpt-6-luna"
const apiKey = Redacted.make(Upstream.key)

/** A provider with a client of its own, in front of a simulator. */
const simulated = (options?: Partial<Provider.Options>) =>
  Layer.unwrap(
    Effect.map(Simulator.Simulator, ({ url }) =>
      Provider.connect({ apiKey, baseUrl: url, model, ...options }).pipe(Layer.provide(Upstream.policies()))
    )
  ).pipe(Layer.provideMerge(Simulator.layer()))

const bodies = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  return (yield* journal.entries).map(({ body }) => new Map(Object.entries(Object(body))))
})

describe("generate", () => {
  it.live("sends system prompt, context and message, and gives text, model, reason and usage", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      const generated = yield* provider.generate({
        system: "Be brief.",
        context: "The ferry leaves at nine.",
        message: "When does it leave?",
        maxTokens: 200,
        temperature: 0
      })
      assert.strictEqual(provider.name, "openai")
      assert.isAbove(generated.text.length, 0)
      assert.deepStrictEqual([generated.model, generated.finishReason], [model, "stop"])
      assert.isTrue(generated.usage?.exact)
      const [body] = yield* bodies
      assert.deepStrictEqual(body?.get("messages"), [
        { role: "developer", content: "Be brief." },
        {
          role: "user",
          content: "<context>\nThe ferry leaves at nine.\n</context>\n\nWhen does it leave?"
        }
      ])
      assert.strictEqual(body?.get("max_completion_tokens"), 200)
      assert.strictEqual(body?.get("temperature"), 0)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("leaves out what was not said", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      yield* provider.generate({ message: "Hello.", model: "gpt-6-sol" })
      const [body] = yield* bodies
      assert.deepStrictEqual(Object.fromEntries(body ?? []), {
        model: "gpt-6-sol",
        messages: [{ role: "user", content: "Hello." }],
        stream: false
      })
    }).pipe(Effect.provide(simulated()))
  )

  it.live("speaks the server's dialect", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      yield* provider.generate({ system: "Be brief.", message: "Hello.", maxTokens: 9 })
      const [body] = yield* bodies
      assert.strictEqual(provider.name, "ollama")
      assert.deepStrictEqual(body?.get("messages"), [
        { role: "system", content: "Be brief." },
        { role: "user", content: "Hello." }
      ])
      assert.deepStrictEqual([body?.get("max_tokens"), body?.has("max_completion_tokens")], [9, false])
    }).pipe(Effect.provide(simulated({ dialect: Dialect.ollama })))
  )

  it.live("fails with Refused, one-shot and streamed", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      const request = { message: "Help me." }
      const errors = [
        yield* Effect.flip(provider.generate(request)),
        yield* Effect.flip(Stream.runDrain(provider.stream(request)))
      ]
      for (const error of errors) {
        assert.strictEqual(error._tag, "Refused")
        assert.strictEqual(error.provider, "mine")
      }
    }).pipe(Effect.provide(simulated({ name: "mine", model: `${model}+fault=refusal` })))
  )

  it.live("fails as the operation does, under the provider's name", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      const error = yield* Effect.flip(provider.generate({ message: "Hello." }))
      assert.deepStrictEqual([error._tag, error.provider], ["Unauthorized", "groq"])
    }).pipe(Effect.provide(simulated({ dialect: Dialect.groq, model: `${model}+fault=status:401` })))
  )
})

describe("stream", () => {
  it.live("gives the text as it comes, and the whole at the end", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      const events = yield* Stream.runCollect(provider.stream({ message: "Why is the sky blue?" }))
      const last = events.at(-1)
      assert.strictEqual(last?._tag, "Completed")
      const pieces = events.flatMap((event) => (event._tag === "Text" ? [event.text] : []))
      assert.isAbove(pieces.length, 1)
      assert.strictEqual(last?._tag === "Completed" ? last.generated.text : "", pieces.join(""))
      assert.isTrue(last?._tag === "Completed" && last.generated.usage?.exact)
      const [body] = yield* bodies
      assert.deepStrictEqual(body?.get("stream_options"), { include_usage: true })
    }).pipe(Effect.provide(simulated()))
  )

  it.live("asks no server for usage that rejects the wish", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      const events = yield* Stream.runCollect(provider.stream({ message: "Why is the sky blue?" }))
      assert.strictEqual(events.at(-1)?._tag, "Completed")
      const [body] = yield* bodies
      assert.isFalse(body?.has("stream_options"))
    }).pipe(Effect.provide(simulated({ dialect: Dialect.mistral })))
  )

  it.live("fails where it breaks off", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      const error = yield* Effect.flip(Stream.runDrain(provider.stream({ message: "Why?" })))
      assert.strictEqual(error._tag, "StreamInterrupted")
    }).pipe(Effect.provide(simulated({ model: `${model}+fault=cut:3+tokens=20` })))
  )

  it.live("asks each deployment of a client as that one wants it, also in a rescue", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.Simulator
      yield* simulator.script(Scenario.sequence(["cut:3", null]))
      const { url } = simulator
      const models = { [model]: `${model}+tokens=20` }
      const router = Router.layer({
        deployments: [
          { name: "first", models },
          { name: "second", models }
        ]
      })
      const policies = Resilience.layer.pipe(
        Layer.provide([Backoff.layerNone, RetryBudget.layerNone, Timeouts.layerNone, router]),
        Layer.provide(CircuitBreaker.layerNone)
      )
      const Deployments = OpenAi.layerDeployments([
        { ...Dialect.clientOptions(Dialect.openai, { apiKey, baseUrl: url }), deployment: "first" },
        { ...Dialect.clientOptions(Dialect.mistral, { apiKey, baseUrl: url }), deployment: "second" }
      ]).pipe(Layer.provide(policies), Layer.provide(Rescue.layer({ strategy: "restart" })))
      const ask = Effect.gen(function* () {
        const { chat } = yield* OpenAi.OpenAi
        yield* Stream.runDrain(chat.stream(Upstream.question()))
      })
      yield* Effect.provide(ask, Deployments)
      assert.deepStrictEqual(
        (yield* bodies).map((body) => body.has("stream_options")),
        [true, false]
      )
    }).pipe(Effect.provide(Simulator.layer()))
  )
})

describe("embed", () => {
  it.live("gives vectors in order", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      assert.isTrue(provider.supportsEmbeddings)
      const { usage, vectors } = yield* provider.embed(["one", "two"])
      assert.deepStrictEqual(
        vectors.map(({ length }) => length),
        [8, 8]
      )
      assert.isAbove(usage.inputTokens, 0)
    }).pipe(Effect.provide(simulated({ embeddingModel: "text-embedding-3-small", dimensions: 8 })))
  )

  it.live("says what is missing, and sends nothing", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      assert.isFalse(provider.supportsEmbeddings)
      const error = yield* Effect.flip(provider.embed(["one"]))
      assert.strictEqual(error.message, "openai was given no model for embeddings")
      assert.include(error.hint, "embeddingModel")
      assert.lengthOf(yield* bodies, 0)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("knows which servers have none", () =>
    Effect.gen(function* () {
      const provider = yield* Provider.Provider
      assert.isFalse(provider.supportsEmbeddings)
      const error = yield* Effect.flip(provider.embed(["one"]))
      assert.strictEqual(error.message, "deepseek has no embeddings")
      assert.include(error.hint, "supportsEmbeddings")
    }).pipe(Effect.provide(simulated({ dialect: Dialect.deepSeek, embeddingModel: "any" })))
  )
})

/** A server that answers every question, and keeps the heads. */
const answering = RawServer.make(({ socket }) =>
  socket.write(
    RawServer.response(
      200,
      JSON.stringify({
        id: "chatcmpl-1",
        created: 1,
        model,
        choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "Hello." } }]
      })
    )
  )
)

/** The head of the first request to a server of this dialect. */
const headTo = Effect.fnUntraced(function* (dialect: (url: string) => Dialect.Dialect, key?: string) {
  const server = yield* answering
  const ask = Effect.gen(function* () {
    const provider = yield* Provider.Provider
    yield* provider.generate({ message: "Hello." })
  })
  yield* Effect.provide(
    ask,
    Provider.connect({
      dialect: dialect(server.url),
      model,
      ...(key === undefined ? {} : { apiKey: Redacted.make(key) })
    }).pipe(Layer.provide(Upstream.policies()))
  )
  return server.heads[0] ?? ""
}, Effect.scoped)

describe("on the wire", () => {
  it.live("Azure gets its key in api-key, and nowhere else", () =>
    Effect.gen(function* () {
      const head = yield* headTo((url) => Dialect.azure({ endpoint: new URL(url).origin }), "azure-key")
      assert.match(head, /^POST \/openai\/v1\/chat\/completions HTTP/u)
      assert.match(head, /^api-key: azure-key$/imu)
      assert.notMatch(head, /authorization/iu)
    })
  )

  it.live("Azure's dated API has the deployment in the path and the date in the query", () =>
    Effect.gen(function* () {
      const head = yield* headTo(
        (url) =>
          Dialect.azure({
            endpoint: `${new URL(url).origin}/`,
            dated: { apiVersion: "2024-10-21", deployment: "my gpt" }
          }),
        "azure-key"
      )
      assert.match(
        head,
        /^POST \/openai\/deployments\/my%20gpt\/chat\/completions\?api-version=2024-10-21 HTTP/u
      )
    })
  )

  it.live("others get a bearer token", () =>
    Effect.gen(function* () {
      const head = yield* headTo((baseUrl) => ({ ...Dialect.groq, baseUrl }), "groq-key")
      assert.match(head, /^authorization: Bearer groq-key$/imu)
      assert.notMatch(head, /^api-key/imu)
    })
  )

  it.live("no key of the environment goes to a server that was given none", () =>
    Effect.gen(function* () {
      const head = yield* headTo((baseUrl) => ({ ...Dialect.ollama, baseUrl }))
      assert.match(head, /^authorization: Bearer none$/imu)
    })
  )
})

describe("connectConfig", () => {
  const built = (dialect: Dialect.Dialect, environment: Record<string, string>) =>
    Provider.Provider.pipe(
      Effect.map(({ name }) => name),
      Effect.provide(
        Provider.connectConfig({ dialect, model }).pipe(
          Layer.provide(Upstream.policies()),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: environment })))
        )
      )
    )

  it.effect("reads the dialect's variable", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* built(Dialect.groq, { GROQ_API_KEY: "key" }), "groq")
      const error = yield* Effect.flip(built(Dialect.groq, { OPENAI_API_KEY: "key" }))
      assert.include(String(error), "GROQ_API_KEY")
    })
  )

  it.effect("does without where the server does", () =>
    Effect.map(built(Dialect.ollama, {}), (name) => assert.strictEqual(name, "ollama"))
  )
})
