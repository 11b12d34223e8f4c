/**
 * Chunks of a second answer, made to look like the rest of the first: one id, one role, one text, and a
 * usage that counts both.
 */
import * as Usage from "@llm/core/Usage"
import { type ChatChunk, isBeyondText, present } from "./chatStream.ts"
import type { Joint } from "./joint.ts"

/** What an answer that broke off has cost. */
export interface Spent {
  /** As the server said; it mostly has not, since it says so last. */
  readonly usage: Usage.Usage | undefined
  /** Tokens that were generated, as far as events tell. */
  readonly generated: number
  /** Prompt tokens beyond those of the request: the delivered text that it was to go on from. */
  readonly carried: number
}

/** What the second answer is joined to. */
export interface Options {
  readonly joint: Joint
  /** The first chunk of the first answer: its id, time and model go on. */
  readonly head: ChatChunk
  readonly broken: ReadonlyArray<Spent>
  /** As in `Spent`, of this answer. */
  readonly carried: number
}

/** A second answer as it goes on from the first. */
export interface Splice {
  /** The chunks to deliver for one that came; `inexact` where the answer turns out to be another one. */
  readonly accept: (chunk: ChatChunk) => ReadonlyArray<ChatChunk> | "inexact"
  /** The chunks to deliver at the end of a stream. */
  readonly end: () => ReadonlyArray<ChatChunk> | "inexact"
}

const isNothing = (value: unknown): boolean => value === undefined || value === null || value === ""

export const make = ({ broken, carried, head, joint }: Options): Splice => {
  const { created, id, model } = head
  const textChunk = (content: string): ReadonlyArray<ChatChunk> =>
    content === ""
      ? []
      : [
          {
            ...head,
            choices: [{ index: 0, delta: { content }, finish_reason: null }],
            ...("usage" in head ? { usage: null } : {})
          }
        ]

  const stamped = (chunk: ChatChunk): ChatChunk => ({
    ...chunk,
    id,
    created,
    model,
    ...(isNothing(chunk.usage) ? {} : { usage: withBroken(chunk.usage, broken, carried) })
  })

  const end = (): ReadonlyArray<ChatChunk> | "inexact" => {
    const joined = joint.end()
    return typeof joined === "string" ? "inexact" : textChunk(joined.rest)
  }

  const accept = (chunk: ChatChunk): ReadonlyArray<ChatChunk> | "inexact" => {
    const [choice] = chunk.choices
    if (choice === undefined) return isNothing(chunk.usage) ? [] : [stamped(chunk)]
    const text = choice.delta?.content ?? ""
    const joined = text === "" ? "waiting" : joint.push(text)
    if (joined === "inexact") return joined
    const content = joined === "waiting" ? "" : joined.rest
    let before: ReadonlyArray<ChatChunk> = []
    if (!joint.made && (isBeyondText(chunk) || present(choice.finish_reason))) {
      const ended = end()
      if (ended === "inexact") return ended
      before = ended
    }
    if (!joint.made) return []
    const delta = { ...choice.delta, role: undefined, ...(text === "" ? {} : { content }) }
    const isEmpty =
      isNothing(choice.finish_reason) && isNothing(chunk.usage) && Object.values(delta).every(isNothing)
    return isEmpty ? before : [...before, stamped({ ...chunk, choices: [{ ...choice, delta }] })]
  }

  return { accept, end }
}

/** A usage with that of the answers that broke off before. Nobody has told theirs: mostly it is an estimate. */
const withBroken = (wire: unknown, broken: ReadonlyArray<Spent>, carried: number): unknown => {
  const last = Usage.fromWire(wire)
  if (last === undefined || typeof wire !== "object" || wire === null) return wire
  const asked = Math.max(0, last.inputTokens - carried)
  const total = broken
    .map(
      (spent) =>
        spent.usage ?? {
          ...Usage.zero,
          inputTokens: asked + spent.carried,
          outputTokens: spent.generated,
          totalTokens: asked + spent.carried + spent.generated
        }
    )
    .reduce(Usage.add, last)
  return {
    ...wire,
    prompt_tokens: total.inputTokens,
    completion_tokens: total.outputTokens,
    total_tokens: total.totalTokens,
    ...detailed(wire, "prompt_tokens_details", { cached_tokens: total.cachedTokens }),
    ...detailed(wire, "completion_tokens_details", { reasoning_tokens: total.reasoningTokens }),
    rescued: broken.length,
    estimated: broken.some(({ usage }) => usage === undefined)
  }
}

const detailed = (wire: object, name: string, counts: Readonly<Record<string, number>>): object => {
  const details: unknown = new Map<string, unknown>(Object.entries(wire)).get(name)
  return typeof details === "object" && details !== null ? { [name]: { ...details, ...counts } } : {}
}
