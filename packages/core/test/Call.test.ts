import { Call } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"

describe("Call", () => {
  it("is a one-shot call of the only deployment unless told", () => {
    assert.deepStrictEqual(Call.make({ provider: "openai", operation: "models.list" }), {
      provider: "openai",
      operation: "models.list",
      deployment: "default",
      stream: false
    })
  })

  it("keeps circuits and limits apart by provider, deployment and model, and by nothing else", () => {
    const call = Call.make({ provider: "azure", deployment: "west", operation: "chat.create", model: "m" })
    assert.strictEqual(Call.key(call), "azure/west/m")
    assert.strictEqual(
      Call.key({ ...call, operation: "chat.stream", stream: true, tenant: "t" }),
      "azure/west/m"
    )
    assert.strictEqual(
      Call.key(Call.make({ provider: "openai", operation: "models.list" })),
      "openai/default/*"
    )
  })
})
