/**
 * `POST /v1/responses`, one-shot, streamed and in the background, and what can be done with a response afterwards.
 *
 * Sources: PROTOCOL sections 1.1 and 1.5; shapes of OpenAI's published description and the official client's types.
 */
import { Predicate, Result } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Hash from "../Hash.ts"
import * as Page from "../Page.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import * as Conversation from "../responses/Conversation.ts"
import * as Item from "../responses/Item.ts"
import * as ResponseEvents from "../responses/ResponseEvents.ts"
import * as ResponseRequest from "../responses/ResponseRequest.ts"
import * as ResponseWriting from "../responses/ResponseWriting.ts"
import * as StoredResponse from "../responses/StoredResponse.ts"
import type { Request, Route, Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import * as Tokens from "../Tokens.ts"
import * as Models from "./Models.ts"

interface Read {
  readonly body: ResponseRequest.ResponseRequest
  readonly fields: { readonly [name: PropertyKey]: unknown }
}

/** Bodies that were found to be right: the same text gives the same object. */
const knownOf = memory(() => new WeakMap<object, Read>())

const read = (request: Request, settings: Settings): Result.Result<Read, ApiError.ApiError> => {
  const { body, model } = request
  const known = Predicate.isObject(body) ? knownOf(settings).get(body) : undefined
  if (known !== undefined) return Result.succeed(known)
  if (!Predicate.isObject(body) || Array.isArray(body)) {
    return Result.fail(ApiError.invalidRequest("Invalid body: expected a JSON object."))
  }
  if (settings.knownModels && model !== "" && !Models.isKnown(model)) {
    return Result.fail(ApiError.modelNotFound(model))
  }
  const failure = settings.strict ? ResponseRequest.ruled(body) : undefined
  if (failure !== undefined) return Result.fail(failure)
  const decoded = ResponseRequest.decode(body)
  if (Result.isFailure(decoded)) return Result.fail(decoded.failure)
  const contradiction = settings.strict ? ResponseRequest.contradicts(decoded.success) : undefined
  if (contradiction !== undefined) return Result.fail(contradiction)
  const sound = { body: decoded.success, fields: body }
  knownOf(settings).set(body, sound)
  return Result.succeed(sound)
}

interface Context {
  readonly earlier: ReadonlyArray<Item.Item>
  readonly input: ReadonlyArray<Item.Item>
  readonly conversation: Conversation.Conversation | undefined
}

/** What the model knows: the turns before this one, and the input. */
const contextOf = (
  { body, fields }: Read,
  settings: Settings,
  free: boolean
): Result.Result<Context, ApiError.ApiError> =>
  Result.gen(function* () {
    const id = Predicate.isObject(body.conversation) ? body.conversation.id : body.conversation
    const conversation =
      id == null
        ? undefined
        : yield* free ? Conversation.getFree(id, settings) : Conversation.get(id, settings)
    let earlier = conversation?.items ?? []
    if (body.previous_response_id != null) {
      const previous = StoredResponse.find(body.previous_response_id, settings)
      if (previous === undefined || StoredResponse.progress(previous, settings) !== "done") {
        return yield* Result.fail(
          ApiError.invalidRequest(`Previous response with id '${body.previous_response_id}' not found.`, {
            param: "previous_response_id",
            code: "previous_response_not_found"
          })
        )
      }
      earlier = previous.context
    }
    const value = fields["input"]
    const given: ReadonlyArray<unknown> = Array.isArray(value)
      ? value
      : Predicate.isString(value)
        ? [{ type: "message", role: "user", content: value }]
        : []
    const known = new Map(earlier.map((item) => [item.id, item]))
    const input: Array<Item.Item> = []
    for (const item of given) {
      if (!Predicate.isObject(item)) continue
      if (item["type"] === "item_reference") {
        const found = known.get(String(item["id"]))
        if (found === undefined) {
          return yield* Result.fail(
            ApiError.invalidRequest(`Item with id '${String(item["id"])}' not found.`, {
              status: 404,
              param: "input"
            })
          )
        }
        input.push(found)
      } else input.push(Item.kept(item, Conversation.nextHash(settings, "item")))
    }
    if (settings.strict) {
      const failure = unanswered([...earlier, ...input])
      if (failure !== undefined) return yield* Result.fail(failure)
    }
    return { earlier, input, conversation }
  })

/** Every call has its answer, and every answer its call. */
const unanswered = (items: ReadonlyArray<Item.Item>): ApiError.ApiError | undefined => {
  const open = new Set<unknown>()
  const called = new Set<unknown>()
  for (const item of items) {
    const call = item["call_id"]
    if (item.type === "function_call") {
      open.add(call)
      called.add(call)
    } else if (item.type === "function_call_output") {
      open.delete(call)
      if (called.has(call)) continue
      return ApiError.invalidRequest(
        `No tool call found for function call output with call_id ${String(call)}.`,
        { param: "input" }
      )
    }
  }
  const [first] = open
  return first === undefined
    ? undefined
    : ApiError.invalidRequest(`No tool output found for function call ${String(first)}.`, { param: "input" })
}

const create = Resource.route("POST", "/responses", (request, settings) =>
  Result.gen(function* () {
    const asked = yield* read(request, settings)
    const { body } = asked
    if (request.model === "") return yield* Result.fail(Parameters.missing("model"))
    if (body.input == null && body.previous_response_id == null && body.conversation == null) {
      return yield* Result.fail(
        ApiError.invalidRequest(
          "One of 'input', 'previous_response_id', 'prompt' or 'conversation' must be provided.",
          { param: "input", code: "missing_required_parameter" }
        )
      )
    }
    const context = yield* contextOf(asked, settings, true)
    const written = yield* ResponseWriting.write(asked.body, context, request, settings)
    return answered(asked, context, written, request, settings)
  })
)

const answered = (
  { body, fields }: Read,
  { conversation, earlier, input }: Context,
  written: ResponseWriting.Written,
  request: Request,
  settings: Settings
): Answer.Answer => {
  const { shape } = request
  const createdAt = settings.now()
  const id = `resp_${Hash.hex(Conversation.nextHash(settings, "response"), 48)}`
  const render = ResponseWriting.renderer(id, body, fields, request, written, createdAt, conversation?.id)
  const background = body.background === true
  const queued = background ? render("queued") : undefined
  const outputs = shape.emptyChoices ? [] : written.outputs
  const streamed = body.stream === true
  const frames =
    streamed || background
      ? ResponseEvents.make(
          outputs,
          { queued, running: render("in_progress") },
          render("done"),
          shape.noFinish ? undefined : written.terminal
        )
      : []
  const items = outputs.map(({ item }) => item)
  const stored: StoredResponse.StoredResponse = {
    id,
    input,
    context: [...earlier, ...input, ...items],
    render,
    // Only these can be streamed again.
    frames: background ? frames : [],
    usage: written.usage,
    background,
    stuck: background && shape.stuck,
    startedAt: performance.now(),
    looks: 0,
    cancelled: false,
    billed: false,
    onDone: () => {
      if (conversation === undefined) return
      conversation.items = [...conversation.items, ...input, ...items]
      conversation.running = undefined
    }
  }
  const store = body.store !== false
  if (background) {
    StoredResponse.put(stored, settings)
    if (conversation !== undefined) {
      conversation.running = () => {
        const state = StoredResponse.progress(stored, settings)
        return state === "queued" || state === "in_progress"
      }
    }
    if (!streamed) return Answer.json(queued ?? "")
    return resumed(stored, -1)
  }
  if (conversation !== undefined) conversation.running = () => true
  const over = (whole: boolean): void => {
    // Who leaves a response that is not in the background stops it, and it is as if it had never been.
    if (!whole) {
      if (conversation !== undefined) conversation.running = undefined
      return
    }
    StoredResponse.finish(stored)
    if (store) StoredResponse.put(stored, settings)
  }
  const answer = streamed
    ? Answer.stream(frames, written.usage)
    : Answer.json(render("done"), { usage: written.usage })
  return { ...answer, over }
}

/** The stream of a background response from an event on. It goes on without its reader, and is billed as a whole. */
const resumed = (stored: StoredResponse.StoredResponse, after: number): Answer.Answer => {
  // What was created, queued and begun; nothing is told after a cancellation.
  const told = stored.cancelled ? stored.frames.slice(0, 3) : stored.frames
  const bill = stored.billed ? 0 : stored.usage.outputTokens
  const usage = stored.billed ? undefined : stored.usage
  stored.billed = true
  return {
    ...Answer.stream(
      told.slice(after + 1).map((frame, index) => ({ ...frame, tokens: index === 0 ? bill : 0 })),
      usage
    ),
    ...(stored.cancelled ? {} : { stopped: () => stored.cancelled }),
    over: (whole) => {
      if (whole && !stored.cancelled) StoredResponse.finish(stored)
    }
  }
}

const retrieve = Resource.route("GET", "/responses/{id}", ({ params, query }, settings) =>
  Result.gen(function* () {
    const response = yield* StoredResponse.get(params["id"] ?? "", settings)
    if (query.get("stream") !== "true") {
      response.looks += 1
      const text = response.render(StoredResponse.progress(response, settings))
      const usage = StoredResponse.bill(response, settings)
      return Answer.json(text, usage === undefined ? undefined : { usage, written: true })
    }
    if (!response.background) {
      return yield* Result.fail(
        ApiError.invalidRequest(
          "Only a response that was created with background set to true can be streamed.",
          {
            param: "stream"
          }
        )
      )
    }
    const after = query.get("starting_after")
    if (after !== null && !/^\d{1,9}$/.test(after)) {
      return yield* Result.fail(Parameters.invalid("starting_after", "expected a whole number"))
    }
    return resumed(response, after === null ? -1 : Number(after))
  })
)

const remove = Resource.route("DELETE", "/responses/{id}", ({ params }, settings) =>
  Result.gen(function* () {
    const response = yield* StoredResponse.get(params["id"] ?? "", settings)
    StoredResponse.remove(response, settings)
    return Resource.json({ id: response.id, object: "response", deleted: true })
  })
)

const cancel = Resource.route("POST", "/responses/{id}/cancel", ({ params }, settings) =>
  Result.gen(function* () {
    const response = yield* StoredResponse.get(params["id"] ?? "", settings)
    if (!response.background) {
      return yield* Result.fail(ApiError.invalidRequest("Cannot cancel a synchronous response."))
    }
    const state = StoredResponse.progress(response, settings)
    if (state === "queued" || state === "in_progress") {
      response.cancelled = true
      const written = ResponseWriting.tokensBy(response, settings)
      const usage = response.billed ? undefined : { ...response.usage, outputTokens: written }
      response.billed = true
      return Answer.json(
        response.render("cancelled"),
        usage === undefined ? undefined : { usage, written: true }
      )
    }
    return Answer.json(response.render(state))
  })
)

const inputItems = Resource.route("GET", "/responses/{id}/input_items", ({ params, query }, settings) =>
  Result.gen(function* () {
    const response = yield* StoredResponse.get(params["id"] ?? "", settings)
    return Resource.json(yield* Page.make(response.input, query, { limit: 20, maximum: 100 }))
  })
)

const inputTokens = Resource.route("POST", "/responses/input_tokens", (request, settings) =>
  Result.gen(function* () {
    const asked = yield* read(request, settings)
    const context = yield* contextOf(asked, settings, false)
    const input_tokens = ResponseWriting.countInput(asked.body, context, request.model)
    return Resource.json({ object: "response.input_tokens", input_tokens })
  })
)

const compact = Resource.route("POST", "/responses/compact", (request, settings) =>
  Result.gen(function* () {
    const asked = yield* read(request, settings)
    if (request.model === "") return yield* Result.fail(Parameters.missing("model"))
    const context = yield* contextOf(asked, settings, false)
    const items = [...context.earlier, ...context.input]
    const hash = Conversation.nextHash(settings, "compaction")
    const words = items.map(Item.text).join(" ").slice(-2000)
    const summary: Item.Item = {
      id: Item.id("compaction", hash),
      type: "compaction",
      encrypted_content: Buffer.from(words).toString("base64")
    }
    const usage: Answer.Usage = {
      inputTokens: ResponseWriting.countInput(asked.body, context, request.model),
      cachedTokens: 0,
      outputTokens: Tokens.count(words, Tokens.encodingOf(request.model))
    }
    const text = JSON.stringify({
      id: `resp_${Hash.hex(hash, 48)}`,
      object: "response.compaction",
      output: [...items.filter(Item.isUser), summary],
      created_at: settings.now(),
      usage: ResponseWriting.usageJson(usage, 0)
    })
    return Answer.json(text, { usage })
  })
)

export const routes: ReadonlyArray<Route> = [
  create,
  inputTokens,
  compact,
  retrieve,
  remove,
  cancel,
  inputItems
]
