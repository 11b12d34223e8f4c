/**
 * Structured output over responses.
 *
 * **Quirks**: a model may write a message before its answer; only the last one is the output.
 */
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { ResponseInputItem } from "openai/resources/responses/responses"
import type { OpenAi } from "../OpenAi.ts"
import * as Responses from "../Responses.ts"
import type { Event, Format, Protocol } from "./outputProtocol.ts"
import * as ResponseObject from "./responseObject.ts"

export interface Request extends Omit<Responses.Request, "text" | "background"> {
  /** How the output is written besides its form. */
  readonly text?: Omit<NonNullable<Responses.Request["text"]>, "format"> | undefined
}

const isMessage = Schema.is(ResponseObject.Message)
const isOutputText = Schema.is(ResponseObject.OutputText)

const formatted = ({ text, ...request }: Request, format: Format): Responses.Request => ({
  ...request,
  text: { ...text, format: { type: "json_schema", ...format, schema: { ...format.schema } } }
})

const itemsOf = (input: Request["input"]): Array<ResponseInputItem> =>
  input === undefined ? [] : typeof input === "string" ? [{ role: "user", content: input }] : [...input]

const lastText = ({ output }: Responses.Response): string =>
  output
    .filter(isMessage)
    .map(({ content }) => content.filter(isOutputText))
    .findLast((texts) => texts.length > 0)
    ?.map(({ text }) => text)
    .join("") ?? ""

export const make = (
  { responses }: OpenAi["Service"],
  call: Responses.CallOptions | undefined
): Protocol<Request, Responses.Response> => ({
  operations: { create: "responses.create", stream: "responses.stream" },
  modelOf: ({ model }) => model,
  create: (request, format) => responses.create(formatted(request, format), call),
  stream: (request, format) => {
    let item: string | undefined
    const events = responses.stream(formatted(request, format), call)
    return Stream.flattenIterable(
      Stream.map(events, (event): ReadonlyArray<Event<Responses.Response>> => {
        switch (event.type) {
          case "response.output_text.delta": {
            const anew = item !== undefined && item !== event.item_id
            item = event.item_id
            return [{ _tag: "Text", text: event.delta, anew }]
          }
          case "response.completed":
          case "response.incomplete":
          case "response.cancelled":
            return [{ _tag: "Completed", reply: event.response }]
          default:
            return []
        }
      })
    )
  },
  said: (response) => {
    const reason = response.incomplete_details?.reason
    return {
      text: lastText(response),
      refusal: Responses.refusalOf(response),
      ended:
        reason === "content_filter"
          ? "filtered"
          : response.status === undefined || response.status === null || response.status === "completed"
            ? "whole"
            : "cut"
    }
  },
  usageOf: Responses.usageOf,
  answering: (request, output, words) => ({
    ...request,
    // A conversation has kept the request and its output already.
    input:
      request.conversation === undefined || request.conversation === null
        ? [
            ...itemsOf(request.input),
            { role: "assistant", content: output },
            { role: "user", content: words }
          ]
        : [{ role: "user", content: words }]
  })
})
