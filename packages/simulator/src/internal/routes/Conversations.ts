/** `/v1/conversations` and their items. */
import { Predicate, Result, Schema } from "effect"
import * as ApiError from "../ApiError.ts"
import * as Page from "../Page.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import * as Conversation from "../responses/Conversation.ts"
import * as Item from "../responses/Item.ts"
import * as ResponseRequest from "../responses/ResponseRequest.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as Strict from "../Strict.ts"

const decodeMetadata = Parameters.decoder(
  Schema.Struct({
    metadata: Parameters.optional(Parameters.Metadata),
    items: Parameters.optional(Item.Input)
  })
)
const decodeItems = Parameters.decoder(Schema.Struct({ items: Item.Input }))

const metadataRule: Strict.Rules = { metadata: { type: "object" } }
const itemsRule: Strict.Rules = { items: { type: "array", maxLength: 20 } }

/** The body's fields, held to the rules. */
const fieldsOf = (
  { body }: Request,
  { strict }: Settings,
  rules: Strict.Rules
): Result.Result<Strict.Fields, ApiError.ApiError> => {
  const fields = body === undefined ? {} : body
  if (!Predicate.isObject(fields) || Array.isArray(fields)) {
    return Result.fail(ApiError.invalidRequest("Invalid body: expected a JSON object."))
  }
  const failure = strict
    ? Strict.first(
        () => Strict.parameters(fields, rules),
        () => Strict.metadata(fields["metadata"]),
        () => ResponseRequest.items(fields["items"], "items")
      )
    : undefined
  return failure === undefined ? Result.succeed(fields) : Result.fail(failure)
}

const itemsOf = (fields: Strict.Fields): ReadonlyArray<Strict.Fields> =>
  Array.isArray(fields["items"]) ? fields["items"].filter(Predicate.isObject) : []

const json = ({ created_at, id, metadata }: Conversation.Conversation) =>
  Resource.json({ id, object: "conversation", created_at, metadata })

const idOf = ({ params }: Request): string => params["id"] ?? ""

const create = Resource.route("POST", "/conversations", (request, settings) =>
  Result.gen(function* () {
    const fields = yield* fieldsOf(request, settings, { ...metadataRule, ...itemsRule })
    const { metadata } = yield* decodeMetadata(fields)
    const conversation = Conversation.make(settings, metadata ?? {})
    conversation.items = Conversation.keep(itemsOf(fields), settings)
    return json(conversation)
  })
)

const retrieve = Resource.route("GET", "/conversations/{id}", (request, settings) =>
  Result.map(Conversation.get(idOf(request), settings), json)
)

const update = Resource.route("POST", "/conversations/{id}", (request, settings) =>
  Result.gen(function* () {
    const conversation = yield* Conversation.get(idOf(request), settings)
    const fields = yield* fieldsOf(request, settings, metadataRule)
    if (fields["metadata"] === undefined) return yield* Result.fail(Parameters.missing("metadata"))
    const { metadata } = yield* decodeMetadata(fields)
    conversation.metadata = metadata ?? {}
    return json(conversation)
  })
)

const remove = Resource.route("DELETE", "/conversations/{id}", (request, settings) =>
  Result.gen(function* () {
    const conversation = yield* Conversation.getFree(idOf(request), settings)
    Conversation.remove(conversation, settings)
    return Resource.json({ id: conversation.id, object: "conversation.deleted", deleted: true })
  })
)

const addItems = Resource.route("POST", "/conversations/{id}/items", (request, settings) =>
  Result.gen(function* () {
    const conversation = yield* Conversation.getFree(idOf(request), settings)
    const fields = yield* fieldsOf(request, settings, itemsRule)
    yield* decodeItems(fields)
    const added = Conversation.keep(itemsOf(fields), settings)
    conversation.items = [...conversation.items, ...added]
    return Resource.json({
      object: "list",
      data: added,
      first_id: added[0]?.id ?? null,
      last_id: added.at(-1)?.id ?? null,
      has_more: false
    })
  })
)

const listItems = Resource.route("GET", "/conversations/{id}/items", (request, settings) =>
  Result.gen(function* () {
    const { items } = yield* Conversation.get(idOf(request), settings)
    return Resource.json(yield* Page.make(items, request.query, { limit: 20, maximum: 100 }))
  })
)

const item = (
  request: Request,
  conversation: Conversation.Conversation
): Result.Result<Item.Item, ApiError.ApiError> => {
  const id = request.params["item"] ?? ""
  const found = conversation.items.find((candidate) => candidate.id === id)
  return found === undefined
    ? Result.fail(ApiError.invalidRequest(`Conversation item with id '${id}' not found.`, { status: 404 }))
    : Result.succeed(found)
}

const retrieveItem = Resource.route("GET", "/conversations/{id}/items/{item}", (request, settings) =>
  Result.gen(function* () {
    const conversation = yield* Conversation.get(idOf(request), settings)
    return Resource.json(yield* item(request, conversation))
  })
)

const removeItem = Resource.route("DELETE", "/conversations/{id}/items/{item}", (request, settings) =>
  Result.gen(function* () {
    const conversation = yield* Conversation.getFree(idOf(request), settings)
    const removed = yield* item(request, conversation)
    conversation.items = conversation.items.filter((candidate) => candidate !== removed)
    return json(conversation)
  })
)

export const routes: ReadonlyArray<Route> = [
  create,
  retrieve,
  update,
  remove,
  addItems,
  listItems,
  retrieveItem,
  removeItem
]
