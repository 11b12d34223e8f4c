/** Trims a conversation of as many messages as told, in a process that did nothing before; prints the milliseconds of each time. */
import { Conversation, Tokenizer } from "@llm/core"
import * as Effect from "effect/Effect"

const [count = "10000", rounds = "50"] = process.argv.slice(2)

/** A system message, and then questions and answers, of which every tenth message asks for a tool. */
const messageAt = (index: number): Conversation.Message => {
  if (index === 0) return { role: "system", content: "You plan journeys." }
  if (index % 10 === 4) {
    const called = { name: "distance", arguments: '{"to":"Lisbon"}' }
    return {
      role: "assistant",
      content: null,
      tool_calls: [{ id: `call_${index}`, type: "function", function: called }]
    }
  }
  if (index % 10 === 5) return { role: "tool", tool_call_id: `call_${index - 1}`, content: "1,630 km" }
  return index % 2 === 0
    ? { role: "assistant", content: `Answer ${index}.` }
    : { role: "user", content: `Question ${index}?` }
}

const conversation = await Effect.runPromise(
  Effect.provide(
    Conversation.append(
      Conversation.make("gpt-4o"),
      Array.from({ length: Number(count) }, (_, index) => messageAt(index))
    ),
    Tokenizer.layerEstimate
  )
)

const times: Array<number> = []
for (let round = 0; round < Number(rounds); round++) {
  const before = performance.now()
  const trimmed = Conversation.trim(conversation, 4000)
  times.push(performance.now() - before)
  if (trimmed.tokens > 4000) throw new Error(`${trimmed.tokens} tokens are left`)
}
console.log(JSON.stringify(times))
