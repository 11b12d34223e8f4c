/** Conversations: items that responses read and add to, one response at a time. */
import { Result } from "effect"
import * as ApiError from "../ApiError.ts"
import * as Hash from "../Hash.ts"
import type { Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import type * as Strict from "../Strict.ts"
import * as Item from "./Item.ts"

export interface Conversation {
  readonly id: string
  readonly created_at: number
  metadata: unknown
  /** Oldest first. */
  items: ReadonlyArray<Item.Item>
  /** Whether a response is being written into it; undefined when none is. */
  running: (() => boolean) | undefined
}

interface Memory {
  readonly conversations: Map<string, Conversation>
  count: number
}

const memoryOf = memory((): Memory => ({ conversations: new Map(), count: 0 }))

/** A number that is another one each time, for ids. */
export const nextHash = (settings: Settings, kind: string): number =>
  Hash.mix(Hash.text(kind, settings.seed) + ++memoryOf(settings).count)

export const make = (settings: Settings, metadata: unknown): Conversation => {
  const conversation: Conversation = {
    id: `conv_${Hash.hex(nextHash(settings, "conversation"), 48)}`,
    created_at: settings.now(),
    metadata,
    items: [],
    running: undefined
  }
  memoryOf(settings).conversations.set(conversation.id, conversation)
  return conversation
}

export const get = (id: string, settings: Settings): Result.Result<Conversation, ApiError.ApiError> => {
  const conversation = memoryOf(settings).conversations.get(id)
  return conversation === undefined
    ? Result.fail(ApiError.invalidRequest(`Conversation with id '${id}' not found.`, { status: 404 }))
    : Result.succeed(conversation)
}

/** A conversation that no response is at work on. */
export const getFree = (id: string, settings: Settings): Result.Result<Conversation, ApiError.ApiError> =>
  Result.flatMap(get(id, settings), (conversation) => {
    if (conversation.running?.() !== true) return Result.succeed(conversation)
    const context = { model: "", retryAfter: undefined }
    return Result.fail(ApiError.fromCatalogue(400, { code: "conversation_locked" }, context))
  })

export const remove = ({ id }: Conversation, settings: Settings): void => {
  memoryOf(settings).conversations.delete(id)
}

/** Items as they are kept, each with an id. */
export const keep = (values: ReadonlyArray<Strict.Fields>, settings: Settings): ReadonlyArray<Item.Item> =>
  values.map((value) => Item.kept(value, nextHash(settings, "item")))
