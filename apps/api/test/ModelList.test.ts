import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import OpenAI, { APIError } from "openai"
import { Simulator } from "@llm/simulator"
import * as ModelList from "@llm/api/ModelList"
import * as TeamGateway from "./support/TeamGateway.ts"

const started = (models?: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const { url } = yield* Simulator.make()
    const gateway = yield* TeamGateway.make({
      upstream: url,
      settings: { SECRET_OF_EAST: "sk-east" },
      file:
        models === undefined
          ? {}
          : { deployments: [{ name: "east", apiKey: { env: "SECRET_OF_EAST" }, baseUrl: url, models }] }
    })
    const client = (secret: string) =>
      new OpenAI({ baseURL: `${gateway.origin}/v1`, apiKey: secret, maxRetries: 0 })
    const listed = (secret: string) =>
      Effect.promise(async () => {
        const names: Array<string> = []
        for await (const { id, object } of client(secret).models.list()) {
          assert.strictEqual(object, "model")
          names.push(id)
        }
        return names
      })
    return { client, gateway, listed, url }
  })

const ofFailure = (promise: () => Promise<unknown>) =>
  Effect.map(Effect.flip(Effect.tryPromise({ try: promise, catch: (cause) => cause })), (error) =>
    error instanceof APIError ? `${error.status} ${error.code}` : error
  )

describe("the list of models", () => {
  it.live("is the provider's, byte by byte, for a key that may use all", () =>
    Effect.gen(function* () {
      const { gateway, url } = yield* started()
      const { secret } = yield* gateway.create()
      const [direct, seen] = yield* Effect.promise(() =>
        Promise.all(
          [`${url}/models`, `${gateway.origin}/v1/models`].map(async (from) =>
            (await fetch(from, { headers: { authorization: `Bearer ${secret}` } })).text()
          )
        )
      )
      assert.strictEqual(seen, direct)
    })
  )

  it.live("is what the key may use", () =>
    Effect.gen(function* () {
      const { client, gateway, listed } = yield* started()
      const { secret } = yield* gateway.create({ models: ["gpt-6-*"] })
      const names = yield* listed(secret)
      assert.isNotEmpty(names)
      for (const name of names) assert.isTrue(name.startsWith("gpt-6-"), name)
      const models = client(secret).models
      assert.strictEqual((yield* Effect.promise(() => models.retrieve("gpt-6-luna"))).id, "gpt-6-luna")
      assert.strictEqual(yield* ofFailure(() => models.retrieve("whisper-1")), "404 model_not_found")
      assert.strictEqual(yield* ofFailure(() => models.delete("whisper-1")), "404 model_not_found")
      const shouted = yield* Effect.promise(async () => {
        const headers = { authorization: `Bearer ${secret}` }
        return (await fetch(`${gateway.origin}/v1/MODELS/whisper-1`, { headers })).text()
      })
      assert.include(shouted, '"model_not_found"')
    })
  )

  it.live("begins with the names that the configuration gives", () =>
    Effect.gen(function* () {
      const { client, gateway, listed } = yield* started({ fast: "gpt-6-luna", "gpt-6-luna": "gpt-6-luna" })
      const all = yield* gateway.create()
      const names = yield* listed(all.secret)
      assert.strictEqual(names[0], "fast")
      assert.strictEqual(new Set(names).size, names.length)
      assert.include(names, "gpt-6-luna")
      const shown = yield* Effect.promise(() => client(all.secret).models.retrieve("fast"))
      assert.deepInclude(shown, { id: "fast", object: "model" })
      const one = yield* gateway.create({ models: ["fast"] })
      assert.deepStrictEqual(yield* listed(one.secret), ["fast"])
      const answer = yield* Effect.promise(() =>
        client(one.secret).chat.completions.create({
          model: "fast",
          messages: [{ role: "user", content: "Why?" }]
        })
      )
      assert.strictEqual(answer.object, "chat.completion")
    })
  )

  it("keeps fields that nobody knows, and is left alone where it is none", () => {
    const bytes = (text: string) => new TextEncoder().encode(text)
    const text = (body: Uint8Array) => new TextDecoder().decode(body)
    const list = bytes('{"object":"list","data":[{"id":"a","x":1},{"id":"b"}]}')
    assert.strictEqual(
      ModelList.shown(list, ["a"], () => true),
      list
    )
    assert.strictEqual(
      text(ModelList.shown(list, [], (model) => model === "a")),
      '{"object":"list","data":[{"id":"a","x":1}]}'
    )
    const odd = bytes('{"models":[]}')
    assert.strictEqual(
      ModelList.shown(odd, ["a"], () => true),
      odd
    )
  })
})
