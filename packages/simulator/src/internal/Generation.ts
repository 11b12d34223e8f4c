/** What the model writes: text, JSON, a refusal or tool calls, decided by the prompt and a hash. */
import { Predicate } from "effect"
import * as Hash from "./Hash.ts"
import type * as Plan from "./Plan.ts"
import * as Prose from "./Prose.ts"
import * as SchemaExample from "./SchemaExample.ts"
import * as Tokens from "./Tokens.ts"

export interface Tool {
  readonly name: string
  /** A JSON Schema; without one there are no arguments. */
  readonly parameters?: unknown
  /** The tool takes any text. */
  readonly custom?: boolean
}

export interface Order {
  /** What the user said last. */
  readonly prompt: string
  readonly hash: number
  readonly tools: ReadonlyArray<Tool>
  /** `auto` calls the tools that the prompt names, until one has answered. */
  readonly toolChoice: "auto" | "none" | "required" | { readonly name: string }
  readonly parallelCalls: boolean
  /** A tool's answer is the last word of the conversation. */
  readonly toolAnswered: boolean
  readonly format: "text" | "json_object" | { readonly schema: unknown }
  readonly stop: ReadonlyArray<string>
  /** The answer's beginning where the caller wrote it (a prefill): the rest of the answer is written. */
  readonly begun?: string | undefined
  /** Tokens at most. */
  readonly limit: number
  /** Tokens of a text, exactly; undefined when it may be as long as it is. */
  readonly tokens: number | undefined
  readonly ending: Plan.Shape["ending"]
  /** What a fixture says in the model's place. */
  readonly said?: Said | undefined
}

/** A reply in words, for every operation that writes a text. */
export interface Said {
  readonly text?: string | undefined
  readonly refusal?: string | undefined
  readonly toolCalls?: ReadonlyArray<{ readonly name: string; readonly arguments: string }> | undefined
}

export interface Call {
  /** `call_` and 24 letters. */
  readonly id: string
  readonly name: string
  readonly custom: boolean
  /** The arguments. */
  readonly pieces: ReadonlyArray<Tokens.Piece>
}

export interface Writing {
  readonly kind: "content" | "refusal" | "calls"
  readonly pieces: ReadonlyArray<Tokens.Piece>
  readonly calls: ReadonlyArray<Call>
  /** Why it ends. */
  readonly reason: "stop" | "length" | "content-filter"
}

export const write = (order: Order): Writing => {
  if (order.ending === "refusal" || order.said?.refusal !== undefined) {
    return {
      kind: "refusal",
      pieces: Tokens.split(order.said?.refusal ?? "I'm sorry, but I can't help with that request."),
      calls: [],
      reason: "stop"
    }
  }
  const calls = callsOf(order)
  if (calls.length > 0) return limited({ kind: "calls", pieces: [], calls, reason: "stop" }, order.limit)
  const writing = limited(
    {
      kind: "content",
      pieces: rest(stopped(text(order), order.stop), order.begun ?? ""),
      calls,
      reason: "stop"
    },
    order.limit
  )
  if (order.ending === undefined || order.ending === "wrong-schema") return writing
  return {
    ...writing,
    pieces: writing.pieces.slice(0, Math.ceil(writing.pieces.length / 2)),
    reason: order.ending === "failed" ? "length" : order.ending
  }
}

/** Of all that was written; a call's name counts too. */
export const tokensOf = (writing: Writing): number =>
  Tokens.sum(writing.pieces) +
  writing.calls.reduce((sum, call) => sum + Tokens.count(call.name) + Tokens.sum(call.pieces), 0)

const text = ({ ending, format, hash, prompt, said, tokens }: Order): ReadonlyArray<Tokens.Piece> => {
  if (ending === "wrong-schema") return Tokens.split('{"unexpected":[true,{"of":"another schema"}]}')
  if (said?.text !== undefined) return Tokens.split(said.text)
  if (format === "json_object") {
    return Tokens.split(JSON.stringify({ answer: Prose.answer(prompt, hash, 1) }))
  }
  if (format !== "text") {
    return Tokens.split(JSON.stringify(SchemaExample.make(format.schema, Prose.keyword(prompt))))
  }
  if (tokens === undefined) return Tokens.split(Prose.answer(prompt, hash, 1 + (hash % 3)))
  // A sentence has some fifteen tokens, and no fewer than six.
  for (let sentences = Math.ceil(tokens / 14) + 1; ; sentences *= 2) {
    const pieces = Tokens.split(Prose.answer(prompt, hash, sentences))
    if (Tokens.sum(pieces) >= tokens) return Tokens.take(pieces, tokens)
  }
}

/** The text up to the first stop sequence, which is not part of it. */
const stopped = (
  pieces: ReadonlyArray<Tokens.Piece>,
  stop: ReadonlyArray<string>
): ReadonlyArray<Tokens.Piece> => {
  const sequences = stop.filter((sequence) => sequence !== "")
  if (sequences.length === 0) return pieces
  const whole = Tokens.join(pieces)
  const ends = sequences.map((sequence) => whole.indexOf(sequence)).filter((end) => end !== -1)
  return ends.length === 0 ? pieces : Tokens.split(whole.slice(0, Math.min(...ends)))
}

/** What comes after the beginning; all of it where the text does not begin so. */
const rest = (pieces: ReadonlyArray<Tokens.Piece>, begun: string): ReadonlyArray<Tokens.Piece> => {
  if (begun === "") return pieces
  const whole = Tokens.join(pieces)
  return whole.startsWith(begun) ? Tokens.split(whole.slice(begun.length)) : pieces
}

const limited = (writing: Writing, limit: number): Writing => {
  if (tokensOf(writing) <= limit) return writing
  const pieces = Tokens.take(writing.pieces, limit)
  let left = limit - Tokens.sum(pieces)
  const calls: Array<Call> = []
  for (const call of writing.calls) {
    left -= Tokens.count(call.name)
    if (left < 0) break
    const kept = Tokens.take(call.pieces, left)
    calls.push({ ...call, pieces: kept })
    left -= Tokens.sum(kept)
  }
  return { ...writing, pieces, calls, reason: "length" }
}

const callsOf = (order: Order): ReadonlyArray<Call> => {
  const { hash, prompt, said, toolChoice, tools } = order
  if (said !== undefined) {
    return (said.toolCalls ?? []).map((call, index) => ({
      id: `call_${Hash.id(Hash.mix(hash + index), 24)}`,
      name: call.name,
      custom: tools.some(({ custom, name }) => custom === true && name === call.name),
      pieces: Tokens.split(call.arguments)
    }))
  }
  if (tools.length === 0 || toolChoice === "none") return []
  const word = Prose.keyword(tools.reduce((words, { name }) => words.replaceAll(name, " "), prompt))
  const call = (tool: Tool, index: number): Call => ({
    id: `call_${Hash.id(Hash.mix(hash + index), 24)}`,
    name: tool.name,
    custom: tool.custom === true,
    pieces: Tokens.split(
      tool.custom === true
        ? Prose.answer(prompt, hash, 1)
        : JSON.stringify(SchemaExample.make(tool.parameters ?? { type: "object" }, word))
    )
  })
  if (!Predicate.isString(toolChoice)) {
    return order.toolAnswered ? [] : tools.filter(({ name }) => name === toolChoice.name).map(call)
  }
  const named = tools.filter(({ name }) => prompt.includes(name))
  const several = order.parallelCalls ? named : named.slice(0, 1)
  if (order.toolAnswered) return []
  if (toolChoice === "required") return (several.length > 0 ? several : tools.slice(0, 1)).map(call)
  return several.map(call)
}
