/** A long conversation with a customer, trimmed to a window, and a verdict on it that a program can act on. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Conversation, Resilience, Tokenizer } from "@llm/core"
import { Models, OpenAi, StructuredOutput } from "@llm/openai"
import { Console, Effect, Layer, Schema } from "effect"

/** Tokens of the history that a verdict may read. */
const window = 400

const Verdict = Schema.Struct({
  risk: Schema.Literals(["low", "medium", "high"]),
  score: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 })),
  reasons: Schema.NonEmptyArray(Schema.String).annotate({ description: "One sentence each" })
})

const agreement = "The credit line is 50,000 CHF, payable within 30 days."
const months = Array.from({ length: 24 }, (_, month): ReadonlyArray<Conversation.Message> => [
  { role: "user", content: `In month ${month + 1} our payment will be ${month} days late again.` },
  { role: "assistant", content: "Noted. The limit stays as it is; a reminder follows after ten days." }
])

/** As data: whoever speaks in the history gives the model no orders. */
const transcript = (conversation: Conversation.Conversation) =>
  JSON.stringify(Conversation.messages(conversation).map(({ content, role }) => ({ role, content })))

const program = Effect.gen(function* () {
  // `OPENAI_MODEL`, where it is set.
  const { chat: model } = yield* Models.defaults
  // Pinned: the agreement is read whatever has to go.
  const begun = yield* Conversation.append(Conversation.make(model), [{ role: "user", content: agreement }], {
    pinned: true
  })
  const whole = yield* Conversation.append(begun, months.flat())
  const recent = Conversation.trim(whole, window)
  yield* Console.log(`history: ${whole.entries.length} messages, ${whole.tokens} tokens`)
  yield* Console.log(`read: ${recent.entries.length} messages, ${recent.tokens} tokens`)

  const { value } = yield* StructuredOutput.generate({
    schema: Verdict,
    name: "risk_verdict",
    request: {
      model,
      messages: [
        { role: "developer", content: "Judge how likely the customer of this conversation is to default." },
        { role: "user", content: transcript(recent) }
      ]
    },
    // A verdict that does not decode is shown to the model, and asked for once more.
    repair: true
  })
  yield* Console.log(`risk: ${value.risk} (${value.score} of 100)\n${value.reasons.join("\n")}`)
}).pipe(
  Effect.catchTag("Refused", ({ refusal }) => Console.error(`no verdict: ${refusal}`)),
  Effect.provide([OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)), Tokenizer.layer])
)

NodeRuntime.runMain(program)
