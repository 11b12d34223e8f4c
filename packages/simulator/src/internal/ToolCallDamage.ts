/** Harm to tool calls, of a chat completion (`tool_calls`) and of a response (items of type `function_call`). */
import { Predicate } from "effect"
import type { Fault } from "../Fault.ts"
import type * as Answer from "./Answer.ts"
import * as Json from "./Json.ts"

type Kind = Extract<Fault, { readonly _tag: "ToolCalls" }>["kind"]
type Fields = { readonly [key: string]: unknown }

const copies = 500

const isCall = (value: unknown): value is Fields =>
  Predicate.isObject(value) && (value["type"] === "function_call" || Predicate.isObject(value["function"]))

export const inBody = (json: unknown, kind: Kind): unknown =>
  Json.each(json, (key, value) => {
    if (!Array.isArray(value) || (key !== "tool_calls" && key !== "output")) return value
    const items: ReadonlyArray<unknown> = value
    const calls = items.filter(isCall)
    const [first] = calls
    if (first === undefined) return value
    if (kind === "many") {
      const more = Array.from({ length: copies - calls.length }, (_, index) => renamed(first, index))
      return [...items, ...more]
    }
    if (kind === "repeated-name") return [...items, first]
    return items.map((item) => (isCall(item) ? damaged(item, kind) : item))
  })

/** The same call with ids of its own. */
const renamed = (call: Fields, index: number): Fields => ({
  ...call,
  ...(Predicate.isString(call["id"]) ? { id: `${call["id"]}${index}` } : {}),
  ...(Predicate.isString(call["call_id"]) ? { call_id: `${call["call_id"]}${index}` } : {})
})

const damaged = (call: Fields, kind: Kind): Fields => {
  const inner = call["function"]
  if (Predicate.isObject(inner)) {
    const { id, ...rest } = call
    return {
      ...(kind === "no-id" || id === undefined ? {} : { id }),
      ...rest,
      function: changed({ ...inner }, kind)
    }
  }
  const { call_id, ...rest } = call
  return { ...(kind === "no-id" ? {} : { call_id }), ...changed(rest, kind) }
}

const changed = (fields: Fields, kind: Kind): Fields => {
  const { arguments: text, name } = fields
  return {
    ...fields,
    ...(Predicate.isString(text) ? { arguments: spoiled(text, kind) } : {}),
    ...(Predicate.isString(name) && kind === "unknown-name" ? { name: "no_such_tool" } : {})
  }
}

const spoiled = (text: string, kind: Kind): string => {
  switch (kind) {
    case "bad-arguments":
      return "{not JSON"
    case "proto":
      return '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'
    case "cut-arguments":
      return text.slice(0, Math.floor(text.length / 2))
    default:
      return text
  }
}

/** What one frame of a stream brings to a call: its place and the piece of its arguments. */
interface Piece {
  readonly index: number
  readonly text: string
}

const pieceOf = (json: unknown): Piece | undefined => {
  const delta = Json.at(json, "choices", 0, "delta", "tool_calls", 0)
  const text = Json.at(delta, "function", "arguments")
  if (Predicate.isString(text)) return { index: Number(Json.at(delta, "index")), text }
  if (Json.at(json, "type") !== "response.function_call_arguments.delta") return undefined
  return { index: Number(Json.at(json, "output_index")), text: String(Json.at(json, "delta")) }
}

export const inStream = (frames: ReadonlyArray<Answer.Frame>, kind: Kind): ReadonlyArray<Answer.Frame> => {
  const read = frames.map((frame) => {
    const json = Json.parse(frame.data)
    return { frame, json, piece: pieceOf(json) }
  })
  const isPiece = (entry: (typeof read)[number]) => entry.piece !== undefined && entry.piece.text !== ""
  switch (kind) {
    case "bad-arguments":
    case "cut-arguments":
    case "proto": {
      const whole = new Map<number, string>()
      for (const { piece } of read) {
        if (piece !== undefined) whole.set(piece.index, `${whole.get(piece.index) ?? ""}${piece.text}`)
      }
      const told = new Set<number>()
      return read.flatMap((entry) => {
        const { frame, json, piece } = entry
        if (!isPiece(entry) || piece === undefined) {
          return [{ ...frame, data: Json.edit(frame.data, (value) => spoiledItems(value, kind)) }]
        }
        // All that is left comes at once.
        if (told.has(piece.index)) return []
        told.add(piece.index)
        const text = spoiled(whole.get(piece.index) ?? "", kind)
        const data = Json.each(json, (key, value) =>
          (key === "arguments" || key === "delta") && Predicate.isString(value) ? text : value
        )
        return [{ ...frame, data: JSON.stringify(data) }]
      })
    }
    case "no-id":
    case "unknown-name":
      return frames.map((frame) => ({
        ...frame,
        data: Json.editEach(frame.data, (key, value) => {
          if (key === "tool_calls" && Array.isArray(value)) {
            return value.map((call: unknown) => (isCall(call) ? damaged(call, kind) : call))
          }
          if (key === "item" && isCall(value)) return damaged(value, kind)
          if (key !== "output" || !Array.isArray(value)) return value
          return value.map((item: unknown) => (isCall(item) ? damaged(item, kind) : item))
        })
      }))
    case "sparse":
      return frames.map((frame) => ({
        ...frame,
        data: Json.editEach(frame.data, (key, value) =>
          key === "tool_calls" && Array.isArray(value)
            ? Json.each(value, (name, index) => (name === "index" ? Number(index) * 2 + 1 : index))
            : value
        )
      }))
    case "repeated-name": {
      const names = new Map<number, unknown>()
      return read.map(({ frame, json, piece }) => {
        const call = Json.at(json, "choices", 0, "delta", "tool_calls", 0, "function")
        if (piece === undefined || !Predicate.isObject(call)) return frame
        const name = names.get(piece.index) ?? call["name"]
        names.set(piece.index, name)
        return {
          ...frame,
          data: Json.editEach(frame.data, (key, value) => (key === "function" ? { ...call, name } : value))
        }
      })
    }
    case "interleaved": {
      // Those of a chat completion only: a response's events belong to an item that was announced.
      const own = read.filter(({ frame, piece }) => piece !== undefined && frame.event === undefined)
      const groups = [...Map.groupBy(own, ({ piece }) => piece?.index ?? 0).values()]
      const longest = Math.max(0, ...groups.map((group) => group.length))
      const turns = Array.from({ length: longest }, (_, turn) =>
        groups.flatMap((group) => group[turn] ?? [])
      ).flat()
      let next = 0
      return read.map((entry) => (own.includes(entry) ? (turns[next++]?.frame ?? entry.frame) : entry.frame))
    }
    case "many": {
      const [begin] = read.filter(({ piece }) => piece !== undefined)
      const at = frames.findLastIndex((_, index) => read[index]?.piece !== undefined) + 1
      if (begin === undefined || begin.frame.event !== undefined) return frames
      const text = read
        .map(({ piece }) => (piece?.index === begin.piece?.index ? (piece?.text ?? "") : ""))
        .join("")
      const more = Array.from({ length: copies - 1 }, (_, number) => ({
        ...begin.frame,
        data: Json.editEach(begin.frame.data, (key, value) =>
          key === "tool_calls" && Array.isArray(value)
            ? Json.each(value, (name, field) =>
                name === "index"
                  ? number + 1
                  : name === "id"
                    ? `${String(field)}${number}`
                    : name === "arguments"
                      ? text
                      : field
              )
            : value
        )
      }))
      return frames.toSpliced(at, 0, ...more)
    }
  }
}

/** The arguments as the events that tell them whole have them. */
const spoiledItems = (json: unknown, kind: Kind): unknown => {
  if (Json.at(json, "type") === "response.function_call_arguments.done" && Predicate.isObject(json)) {
    return changed(json, kind)
  }
  return Json.each(json, (key, value) => {
    if (key === "item" && isCall(value)) return damaged(value, kind)
    if (key !== "output" || !Array.isArray(value)) return value
    return value.map((item: unknown) => (isCall(item) ? damaged(item, kind) : item))
  })
}
