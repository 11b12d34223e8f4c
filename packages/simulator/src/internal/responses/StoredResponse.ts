/** The responses that the simulator remembers, and how far those are that are written in the background. */
import { Result } from "effect"
import type * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import type { Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import type { Item } from "./Item.ts"

export type Progress = "queued" | "in_progress" | "done" | "cancelled"

export interface StoredResponse {
  readonly id: string
  /** What the request brought. */
  readonly input: ReadonlyArray<Item>
  /** All that a response that follows this one knows: earlier turns, the input and the output. */
  readonly context: ReadonlyArray<Item>
  /** As JSON: the response while it is written, and at its end. */
  readonly render: (progress: Progress) => string
  readonly frames: ReadonlyArray<Answer.Frame>
  readonly usage: Answer.Usage
  readonly background: boolean
  /** It stays queued for ever. */
  readonly stuck: boolean
  /** As `performance.now()`. */
  readonly startedAt: number
  /** How often it was asked for: without latency each look is one step. */
  looks: number
  cancelled: boolean
  /** Whether some entry of the journal has the bill. */
  billed: boolean
  /** To be called once when it is done. */
  onDone: (() => void) | undefined
}

/** Benchmarks would fill the memory. */
const maximum = 10_000

const memoryOf = memory(() => new Map<string, StoredResponse>())

export const put = (response: StoredResponse, settings: Settings): void => {
  const responses = memoryOf(settings)
  if (responses.size >= maximum) {
    const [oldest] = responses.keys()
    if (oldest !== undefined) responses.delete(oldest)
  }
  responses.set(response.id, response)
}

export const find = (id: string, settings: Settings): StoredResponse | undefined => memoryOf(settings).get(id)

export const get = (id: string, settings: Settings): Result.Result<StoredResponse, ApiError.ApiError> => {
  const response = find(id, settings)
  return response === undefined
    ? Result.fail(ApiError.invalidRequest(`Response with id '${id}' not found.`, { status: 404 }))
    : Result.succeed(response)
}

export const remove = ({ id }: StoredResponse, settings: Settings): void => {
  memoryOf(settings).delete(id)
}

/** When latency is set, real time decides how far a background response is; else each look takes it a step on. */
export const progress = (response: StoredResponse, settings: Settings): Progress => {
  if (response.cancelled) return "cancelled"
  if (response.stuck && response.onDone !== undefined) return "queued"
  if (!response.background || response.onDone === undefined) return "done"
  const { betweenTokens, timeToFirstToken } = settings.pace
  const timed = timeToFirstToken > 0 || betweenTokens > 0
  const needed = timeToFirstToken + Math.max(0, response.usage.outputTokens - 1) * betweenTokens
  const elapsed = performance.now() - response.startedAt
  const done = timed ? elapsed >= needed : response.looks >= 2
  if (done) {
    finish(response)
    return "done"
  }
  return (timed ? elapsed >= timeToFirstToken : response.looks > 0) ? "in_progress" : "queued"
}

export const finish = (response: StoredResponse): void => {
  response.onDone?.()
  response.onDone = undefined
}

/** The bill of a background response, for the first exchange that sees its end. */
export const bill = (response: StoredResponse, settings: Settings): Answer.Usage | undefined => {
  if (response.billed || !response.background) return undefined
  const state = progress(response, settings)
  if (state === "queued" || state === "in_progress") return undefined
  response.billed = true
  return response.usage
}
