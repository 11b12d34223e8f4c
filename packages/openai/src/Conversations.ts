/**
 * Conversations: what was said, kept by OpenAI, for `conversation` of a response.
 *
 * While a response is written into one, changing it is a `Conflict`, which is retried.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type {
  ConversationCreateParams,
  ConversationUpdateParams
} from "openai/resources/conversations/conversations"
import type { ItemCreateParams, ItemListParams } from "openai/resources/conversations/items"
import * as Operation from "./internal/operation.ts"
import type { OpenAiClient } from "./OpenAiClient.ts"
import * as Responses from "./Responses.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A conversation to create: with at most 20 items. */
export type CreateRequest = ConversationCreateParams

/** What becomes of its metadata: all of it is replaced. */
export type UpdateRequest = ConversationUpdateParams

/** At most 20 items to add. */
export type CreateItemsRequest = ItemCreateParams

/** Which items, and how they are read: `limit` is the size of a page, newest first unless told. */
export type ListItemsRequest = ItemListParams

/** What an item shall tell beside the usual. */
export type RetrieveItemRequest = Pick<ItemListParams, "include">

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** A conversation without its items; fields that are not named here stay on the object. */
export const Conversation = Schema.Struct({
  id: Schema.String,
  /** Unix seconds. */
  created_at: Schema.Finite,
  metadata: Schema.optional(Schema.Unknown)
})
export type Conversation = typeof Conversation.Type

/** One item: a message, a call of a tool, or what it gave; what else it has stays on the object. */
export const Item = Responses.InputItem
export type Item = typeof Item.Type

/** That a conversation is gone. */
export const Deleted = Schema.Struct({ id: Schema.String, deleted: Schema.Boolean })
export type Deleted = typeof Deleted.Type

const isConversation = Schema.is(Conversation)
const isItem = Schema.is(Item)
const isItems = Operation.pageOf(Item)
const isDeleted = Schema.is(Deleted)

type Client = OpenAiClient["Service"]
type Pipe = Resilience.Resilience["Service"]

// ---------------------------------------------------------------------------
// Conversations
// ---------------------------------------------------------------------------

/** `conversations.create`: an empty conversation, or one with items. */
const create =
  (client: Client, resilience: Pipe) =>
  (request: CreateRequest = {}, options?: CallOptions): Effect.Effect<Conversation, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "conversations.create",
        method: "post",
        path: ["conversations"],
        body: request,
        accepts: isConversation,
        noun: "a conversation"
      },
      options
    )

/** `conversations.retrieve`: fails with `NotFound` where there is none. */
const retrieve =
  (client: Client, resilience: Pipe) =>
  (id: string, options?: CallOptions): Effect.Effect<Conversation, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "conversations.retrieve",
        method: "get",
        path: ["conversations", id],
        accepts: isConversation,
        noun: "a conversation"
      },
      options
    )

/** `conversations.modify`: other metadata. */
const update =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    request: UpdateRequest,
    options?: CallOptions
  ): Effect.Effect<Conversation, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "conversations.modify",
        method: "post",
        path: ["conversations", id],
        body: request,
        replaySafe: true,
        accepts: isConversation,
        noun: "a conversation"
      },
      options
    )

/**
 * `conversations.delete`: its items stay where a response holds them. Fails with `NotFound` where there is none,
 * unless an earlier attempt has deleted it.
 */
const remove =
  (client: Client, resilience: Pipe) =>
  (id: string, options?: CallOptions): Effect.Effect<Deleted, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "conversations.delete",
        method: "delete",
        path: ["conversations", id],
        accepts: isDeleted,
        noun: "a deletion",
        gone: { id, deleted: true }
      },
      options
    )

// ---------------------------------------------------------------------------
// Items
// ---------------------------------------------------------------------------

/** `conversations.items.create`: adds items at the end, and gives them with their ids. */
const createItems =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    { include, ...body }: CreateItemsRequest,
    options?: CallOptions
  ): Effect.Effect<ReadonlyArray<Item>, LlmError.CallError> =>
    Effect.map(
      Operation.json(
        client,
        resilience,
        {
          operation: "conversations.items.create",
          method: "post",
          path: ["conversations", id, "items"],
          query: { include },
          body,
          accepts: isItems,
          noun: "a list of items"
        },
        options
      ),
      ({ data }) => data
    )

/** `conversations.items.list`: page by page, as far as the stream is read. */
const listItems =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    request: ListItemsRequest = {},
    options?: CallOptions
  ): Stream.Stream<Item, LlmError.CallError> =>
    Operation.list(
      client,
      resilience,
      {
        operation: "conversations.items.list",
        path: ["conversations", id, "items"],
        query: { ...request },
        accepts: isItems,
        noun: "a list of items"
      },
      options
    )

/** `conversations.items.retrieve`: fails with `NotFound` where there is none. */
const retrieveItem =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    item: string,
    request: RetrieveItemRequest = {},
    options?: CallOptions
  ): Effect.Effect<Item, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "conversations.items.retrieve",
        method: "get",
        path: ["conversations", id, "items", item],
        query: { ...request },
        accepts: isItem,
        noun: "an item"
      },
      options
    )

/** `conversations.items.delete`: gives the conversation without the item. */
const removeItem =
  (client: Client, resilience: Pipe) =>
  (id: string, item: string, options?: CallOptions): Effect.Effect<Conversation, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "conversations.items.delete",
        method: "delete",
        path: ["conversations", id, "items", item],
        accepts: isConversation,
        noun: "a conversation"
      },
      options
    )

// ---------------------------------------------------------------------------
// Together
// ---------------------------------------------------------------------------

/** All of them over one client and its policies. */
export const make = (client: Client, resilience: Pipe) => ({
  create: create(client, resilience),
  retrieve: retrieve(client, resilience),
  update: update(client, resilience),
  delete: remove(client, resilience),
  items: {
    create: createItems(client, resilience),
    list: listItems(client, resilience),
    retrieve: retrieveItem(client, resilience),
    delete: removeItem(client, resilience)
  }
})

/** What `make` gives. */
export type Conversations = ReturnType<typeof make>
