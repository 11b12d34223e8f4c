import { assert, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import { Dialect } from "@llm/openai"

const azure = Dialect.azure({ endpoint: "https://mine.openai.azure.com" })

describe("the dialects", () => {
  it("have names of their own, a variable, an address and a source", () => {
    const dialects = [...Dialect.all, azure]
    assert.lengthOf(new Set(dialects.map(({ name }) => name)), dialects.length)
    for (const { baseUrl, keyVariable, source } of dialects) {
      assert.match(baseUrl, /^https?:\/\/[^/]+(?:\/\S*[^/])?$/u)
      assert.match(keyVariable, /^[A-Z_]+_KEY$/u)
      assert.match(source, /^https:\/\//u)
    }
  })

  it("need a key wherever the server is not one's own", () => {
    for (const { baseUrl, keyRequired, name } of Dialect.all) {
      assert.strictEqual(keyRequired, !baseUrl.startsWith("http://localhost"), name)
    }
  })

  it("know what Azure took when", () => {
    const dated = (apiVersion: string) =>
      Dialect.azure({
        endpoint: "https://mine.openai.azure.com",
        dated: { apiVersion, deployment: "d" }
      })
    assert.deepInclude(dated("2024-06-01"), { streamUsage: false, maxTokensField: "max_tokens" })
    for (const dialect of [dated("2024-09-01-preview"), dated("2024-10-21"), azure]) {
      assert.deepInclude(dialect, { streamUsage: true, maxTokensField: "max_completion_tokens" })
    }
  })

  it("make the options of a client", () => {
    const apiKey = Redacted.make("key")
    assert.deepInclude(Dialect.clientOptions(Dialect.mistral, { apiKey, baseUrl: "http://here/v1" }), {
      apiKey,
      baseUrl: "http://here/v1",
      provider: "mistral",
      authorization: "bearer",
      streamUsage: false
    })
  })
})
