/** A server that answers chat completions with what a test wrote down, one after the other. */
import type { Effect, Scope } from "effect"
import * as RawServer from "./RawServer.ts"

interface ScriptedCall {
  readonly name: string
  readonly arguments: string
  readonly id?: string
}

export interface Scripted {
  readonly text?: string
  readonly refusal?: string
  readonly calls?: ReadonlyArray<ScriptedCall>
  readonly finish?: string
  /** Tokens that are reported; a server that tells none leaves it out. */
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number }
}

const callsOf = ({ calls = [] }: Scripted) =>
  calls.map((call, index) => ({
    id: call.id ?? `call_${index}`,
    type: "function",
    function: { name: call.name, arguments: call.arguments }
  }))

const head = { id: "chatcmpl-1", created: 1, model: "gpt-6-luna" }

const finishOf = ({ calls = [], finish }: Scripted) => finish ?? (calls.length > 0 ? "tool_calls" : "stop")

/** One reply in one piece. */
const body = (reply: Scripted): string =>
  JSON.stringify({
    ...head,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        finish_reason: finishOf(reply),
        message: {
          role: "assistant",
          content: reply.text ?? null,
          refusal: reply.refusal ?? null,
          ...(reply.calls === undefined ? {} : { tool_calls: callsOf(reply) })
        }
      }
    ],
    ...(reply.usage === undefined ? {} : { usage: reply.usage })
  })

const chunk = (delta: object, finish: string | null = null): string =>
  `data: ${JSON.stringify({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, finish_reason: finish }]
  })}\n\n`

/** The events of a stream whose text and arguments come letter by letter, the calls in turns. */
const events = (reply: Scripted): ReadonlyArray<string> => {
  const calls = callsOf(reply)
  const longest = Math.max(0, ...calls.map((call) => call.function.arguments.length))
  return [
    chunk({ role: "assistant", content: null }),
    ...Array.from(reply.text ?? "", (content) => chunk({ content })),
    ...Array.from(reply.refusal ?? "", (refusal) => chunk({ refusal })),
    ...calls.map(({ function: { name }, id, type }, index) =>
      chunk({ tool_calls: [{ index, id, type, function: { name, arguments: "" } }] })
    ),
    ...Array.from({ length: longest }, (_, at) =>
      calls.flatMap((call, index) => {
        const piece = call.function.arguments.charAt(at)
        return piece === "" ? [] : [chunk({ tool_calls: [{ index, function: { arguments: piece } }] })]
      })
    ).flat(),
    chunk({}, finishOf(reply)),
    ...(reply.usage === undefined
      ? []
      : [`data: ${JSON.stringify({ ...head, choices: [], usage: reply.usage })}\n\n`]),
    "data: [DONE]\n\n"
  ]
}

/** Each reply once, the last one for all that follow. */
export const make = (
  replies: ReadonlyArray<Scripted>
): Effect.Effect<RawServer.RawServer, never, Scope.Scope> =>
  RawServer.make(({ number, socket }) => {
    const reply = replies[Math.min(number, replies.length) - 1] ?? {}
    socket.write(RawServer.response(200, body(reply)))
  })

/** The same as streams; `cut` ends the last one after so many events, without an end. */
export const streamed = (
  replies: ReadonlyArray<Scripted>,
  cut?: number
): Effect.Effect<RawServer.RawServer, never, Scope.Scope> =>
  RawServer.make(({ number, socket }) => {
    const all = events(replies[Math.min(number, replies.length) - 1] ?? {})
    const sent = cut !== undefined && number >= replies.length ? all.slice(0, cut) : all
    socket.write(RawServer.response(200, sent.join(""), { "content-type": "text/event-stream" }))
  })
