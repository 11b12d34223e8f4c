/** Messages for tests, and conversations of any kind. */
import * as fc from "fast-check"
import * as Conversation from "../../src/Conversation.ts"

type Message = Conversation.Message

export const system = (content: string): Message => ({ role: "system", content })
export const developer = (content: string): Message => ({ role: "developer", content })
export const user = (content: string): Message => ({ role: "user", content })
export const assistant = (content: string): Message => ({ role: "assistant", content })
export const replies = (id: string): Message => ({ role: "tool", tool_call_id: id, content: id })
export const asks = (...ids: ReadonlyArray<string>): Message => ({
  role: "assistant",
  content: null,
  tool_calls: ids.map((id) => ({ id, type: "function", function: { name: "look", arguments: "{}" } }))
})

const text = fc.integer({ min: 1, max: 120 }).map((length) => "x".repeat(length))

/** Few ids, so that calls and replies meet, in order and out of it. */
const id = fc.constantFrom("a", "b", "c")

export const message: fc.Arbitrary<Message> = fc.oneof(
  { weight: 1, arbitrary: text.map(system) },
  { weight: 1, arbitrary: text.map(developer) },
  { weight: 4, arbitrary: text.map(user) },
  { weight: 4, arbitrary: text.map(assistant) },
  { weight: 3, arbitrary: fc.uniqueArray(id, { minLength: 1 }).map((ids) => asks(...ids)) },
  { weight: 5, arbitrary: id.map(replies) }
)

/** Counted by hand, so that it can be made outside of an effect: `layerEstimate` gives the same. */
const tokensOf = (one: Message): number => {
  const leaves: Array<string> = [one.role]
  let tokens = 3
  if (typeof one.content === "string") leaves.push(one.content)
  if (one.role === "tool") leaves.push(one.tool_call_id)
  if (one.role === "assistant") {
    for (const call of one.tool_calls ?? []) {
      tokens += 3
      leaves.push(call.function?.name ?? "", call.function?.arguments ?? "")
    }
  }
  return leaves.reduce((sum, leaf) => sum + Math.ceil(leaf.length / 4), tokens)
}

export const conversation: fc.Arbitrary<Conversation.Conversation> = fc
  .array(fc.tuple(message, fc.boolean(), fc.nat(5)), { maxLength: 25 })
  .map((drawn) =>
    Conversation.fromEntries(
      "gpt-4o",
      drawn.map(([one, mayPin, dice], index) => ({
        message: one,
        tokens: tokensOf(one),
        exact: false,
        time: index,
        pinned: mayPin && dice === 0
      }))
    )
  )
