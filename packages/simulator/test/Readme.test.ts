import OpenAI from "openai"
import { describe, expect, it } from "vitest"
import { start } from "@llm/simulator/vitest"

describe("my client", () => {
  const simulator = start()
  const ask = () =>
    new OpenAI({ baseURL: simulator.url, apiKey: "any" }).chat.completions.create({
      model: "gpt-6-luna",
      messages: [{ role: "user", content: "Why is the sky blue?" }]
    })

  it("retries a 503 and is billed once", async () => {
    simulator.faults("status:503;retry-after-ms=1", null)
    await ask()
    simulator.expectAttempts(2)
    simulator.expectBilledOnce()
    expect(simulator.entries().map(({ status }) => status)).toEqual([503, 200])
  })

  it("reads what a fixture says", async () => {
    simulator.play({ fixtures: [{ when: { prompt: "sky" }, reply: { text: "Rayleigh." } }] })
    expect((await ask()).choices[0]?.message.content).toBe("Rayleigh.")
    expect(simulator.expectRequest(({ model }) => model === "gpt-6-luna").status).toBe(200)
    simulator.expectIdle()
  })
})
