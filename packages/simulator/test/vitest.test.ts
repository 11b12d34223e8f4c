import OpenAI from "openai"
import { describe, expect, it } from "vitest"
import { start } from "@llm/simulator/vitest"

describe("a suite without Effect", () => {
  const simulator = start({ script: { faults: [{ fault: "status:409", when: { model: "other" } }] } })
  const ask = (maxRetries: number) =>
    new OpenAI({ baseURL: simulator.url, apiKey: "any", maxRetries }).chat.completions.create({
      model: "gpt-6-luna",
      messages: [{ role: "user", content: "Why is the sky blue?" }]
    })

  it("retries a 503, and is billed once", async () => {
    simulator.faults("status:503;retry-after-ms=1", null)
    await ask(1)
    simulator.expectAttempts(2)
    simulator.expectBilledOnce()
    simulator.expectIdle()
    expect(simulator.expectRequest((entry) => entry.attempt === 1).status).toBe(200)
  })

  it("begins each test anew", async () => {
    expect(simulator.entries()).toEqual([])
    simulator.play({ fixtures: [{ reply: { text: "Because." } }] })
    expect((await ask(0)).choices[0]?.message.content).toBe("Because.")
    await simulator.awaitIdle()
  })

  it("has its own script again in each test", async () => {
    const reply = await simulator.fetch(`${simulator.url}/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "other", messages: [{ role: "user", content: "Hello" }] })
    })
    expect(reply.status).toBe(409)
  })

  it("leaves a request open", async () => {
    simulator.faults("no-headers")
    const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello" }] })
    const waiting = simulator.fetch(`${simulator.url}/chat/completions`, { method: "POST", body })
    waiting.catch(() => {})
    await simulator.awaitEntry(({ faults }) => faults.length > 0)
    expect(() => simulator.expectIdle()).toThrow("there were 1")
  })

  it("does not see it in the next test", () => {
    expect(simulator.entries()).toEqual([])
    simulator.expectIdle()
  })

  it("lists the requests where an assertion fails", async () => {
    expect((await ask(0)).choices[0]?.message.content).not.toBe("Because.")
    expect(() => simulator.expectAttempts(2)).toThrow(
      /Expected 2 requests, there were 1:\n {2}\d+: POST \/v1\/chat\/completions/
    )
    expect(() => simulator.expectRequest((entry) => entry.model === "other")).toThrow("No request matches")
  })
})
