import { assert, describe, it } from "@effect/vitest"
import * as openai from "@llm/openai"

/** A name that comes or goes here is a change for users: it belongs in a changeset. */
describe("the public surface", () => {
  it("is these names", () => {
    assert.deepStrictEqual(
      Object.fromEntries(
        Object.entries(openai).map(([name, module]) => [name, Object.keys(module).toSorted()])
      ),
      {
        ChatCompletions: ["ChatCompletion", "create", "stream", "textOf", "usageOf"],
        Models: ["Model", "list"],
        OpenAi: ["OpenAi", "layer", "layerClient", "layerConfig", "layerDeployments"],
        OpenAiClient: [
          "OpenAiClient",
          "callOf",
          "config",
          "isErrorBody",
          "layer",
          "layerConfig",
          "layerDeployments",
          "make",
          "makeDeployments",
          "parseJson",
          "readBytes"
        ],
        Passthrough: ["send"]
      }
    )
  })

  it("has no way to the internals", async () => {
    for (const module of ["sse", "chatStream", "pool"]) {
      const path = `@llm/openai/internal/${module}`
      const outcome = await import(path).then(
        () => "imported",
        () => "refused"
      )
      assert.strictEqual(outcome, "refused")
    }
  })
})
