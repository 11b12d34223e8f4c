/** The stream of a response: its events in order, numbered from 0. */
import type * as Answer from "../Answer.ts"
import type * as Generation from "../Generation.ts"
import * as Tokens from "../Tokens.ts"
import type { Item } from "./Item.ts"

/** An item of the output with what its stream needs. */
export type Output =
  | {
      readonly kind: "reasoning"
      readonly item: Item
      readonly summary: ReadonlyArray<Tokens.Piece>
      readonly tokens: number
    }
  | { readonly kind: "search"; readonly item: Item }
  | {
      readonly kind: "message"
      readonly item: Item
      readonly part: { readonly type: string }
      readonly annotations: ReadonlyArray<unknown>
      readonly refusal: boolean
      readonly pieces: ReadonlyArray<Tokens.Piece>
    }
  | { readonly kind: "call"; readonly item: Item; readonly call: Generation.Call }

/**
 * All events of a response.
 *
 * @param began the response before any output, as JSON.
 * @param ended the response at its end.
 * @param terminal the type of the last event; undefined when there is none.
 */
export const make = (
  outputs: ReadonlyArray<Output>,
  began: { readonly queued: string | undefined; readonly running: string },
  ended: string,
  terminal: string | undefined
): ReadonlyArray<Answer.Frame> => {
  const frames: Array<Answer.Frame> = []
  const push = (type: string, fields: string, tokens = 0, content = false) => {
    frames.push({
      event: type,
      data: `{"type":"${type}","sequence_number":${frames.length},${fields}}`,
      content,
      tokens
    })
  }
  push("response.created", `"response":${began.queued ?? began.running}`)
  if (began.queued !== undefined) push("response.queued", `"response":${began.queued}`)
  push("response.in_progress", `"response":${began.running}`)
  for (const [index, output] of outputs.entries()) {
    const { item } = output
    const at = `"item_id":"${item.id}","output_index":${index}`
    push(
      "response.output_item.added",
      `"output_index":${index},"item":${JSON.stringify(started(output))}`,
      output.kind === "reasoning" ? output.tokens : 0
    )
    switch (output.kind) {
      case "reasoning":
        reasoning(output, at, push)
        break
      case "search":
        for (const state of ["in_progress", "searching", "completed"])
          push(`response.file_search_call.${state}`, at)
        break
      case "message":
        message(output, `${at},"content_index":0`, push)
        break
      case "call":
        calling(output, at, push)
        break
    }
    push("response.output_item.done", `"output_index":${index},"item":${JSON.stringify(item)}`)
  }
  if (terminal !== undefined) push(terminal, `"response":${ended}`)
  return frames
}

type Push = (type: string, fields: string, tokens?: number, content?: boolean) => void

/** The item as it is when it appears. */
const started = (output: Output): Item => {
  switch (output.kind) {
    case "reasoning":
      return { ...output.item, summary: [] }
    case "search":
      return { ...output.item, status: "in_progress", results: null }
    case "message":
      return { ...output.item, status: "in_progress", content: [] }
    case "call":
      return output.call.custom
        ? { ...output.item, input: "" }
        : { ...output.item, status: "in_progress", arguments: "" }
  }
}

const reasoning = (output: Extract<Output, { kind: "reasoning" }>, at: string, push: Push): void => {
  const { summary } = output
  const where = `${at},"summary_index":0`
  if (summary.length === 0) return
  push("response.reasoning_summary_part.added", `${where},"part":{"type":"summary_text","text":""}`)
  for (const { text } of summary)
    push("response.reasoning_summary_text.delta", `${where},"delta":${JSON.stringify(text)}`)
  const whole = JSON.stringify(Tokens.join(summary))
  push("response.reasoning_summary_text.done", `${where},"text":${whole}`)
  push("response.reasoning_summary_part.done", `${where},"part":{"type":"summary_text","text":${whole}}`)
}

const message = (output: Extract<Output, { kind: "message" }>, at: string, push: Push): void => {
  const { annotations, part, pieces, refusal } = output
  const empty = refusal
    ? `{"type":"refusal","refusal":""}`
    : `{"type":"output_text","text":"","annotations":[],"logprobs":[]}`
  push("response.content_part.added", `${at},"part":${empty}`)
  const logprobs = refusal ? "" : `,"logprobs":[]`
  const delta = refusal ? "response.refusal.delta" : "response.output_text.delta"
  for (const { text, tokens } of pieces)
    push(delta, `${at},"delta":${JSON.stringify(text)}${logprobs}`, tokens, true)
  for (const [index, annotation] of annotations.entries()) {
    push(
      "response.output_text.annotation.added",
      `${at},"annotation_index":${index},"annotation":${JSON.stringify(annotation)}`
    )
  }
  const whole = JSON.stringify(Tokens.join(pieces))
  if (refusal) push("response.refusal.done", `${at},"refusal":${whole}`)
  else push("response.output_text.done", `${at},"text":${whole},"logprobs":[]`)
  push("response.content_part.done", `${at},"part":${JSON.stringify(part)}`)
}

const calling = ({ call }: Extract<Output, { kind: "call" }>, at: string, push: Push): void => {
  const type = call.custom ? "response.custom_tool_call_input" : "response.function_call_arguments"
  let tokens = Tokens.count(call.name)
  for (const piece of call.pieces) {
    push(`${type}.delta`, `${at},"delta":${JSON.stringify(piece.text)}`, piece.tokens + tokens, true)
    tokens = 0
  }
  const whole = JSON.stringify(Tokens.join(call.pieces))
  if (call.custom) push(`${type}.done`, `${at},"input":${whole}`)
  else push(`${type}.done`, `${at},"name":${JSON.stringify(call.name)},"arguments":${whole}`)
}
