/**
 * What a response says, read out of its output.
 */
import * as Schema from "effect/Schema"
import * as Usage from "@llm/core/Usage"
import * as Citations from "./citation.ts"
import * as ResponseObject from "./responseObject.ts"

type Response = ResponseObject.Response
type FunctionCall = typeof ResponseObject.FunctionCall.Type

const isMessage = Schema.is(ResponseObject.Message)
const isOutputText = Schema.is(ResponseObject.OutputText)
const isRefusal = Schema.is(ResponseObject.Refusal)
const isFunctionCall = Schema.is(ResponseObject.FunctionCall)
const isReasoning = Schema.is(ResponseObject.Reasoning)

const partsOf = ({ output }: Response) => output.filter(isMessage).flatMap(({ content }) => content)

/** The text of all messages of a response, or the empty string. */
export const textOf = (response: Response): string =>
  partsOf(response)
    .filter(isOutputText)
    .map(({ text }) => text)
    .join("")

/** Why the model would not answer; `undefined` where it did. */
export const refusalOf = (response: Response): string | undefined =>
  partsOf(response).find(isRefusal)?.refusal

/**
 * Where a text has something from: a file of a `file_search`, a page of a `web_search`, a file that a container
 * wrote. `unknown` for what this version does not know, whose `raw` is what came.
 */
export type Citation = Citations.Citation

/** Reads one annotation, such as that of the event `response.output_text.annotation.added`. */
export const citationOf: (annotation: unknown) => Citation = Citations.read

/** The citations of a response, each with the text that its indexes count in; in the model's order. */
export const citationsOf = (
  response: Response
): ReadonlyArray<{ readonly text: string; readonly citation: Citation }> =>
  partsOf(response)
    .filter(isOutputText)
    .flatMap(({ annotations, text }) =>
      (annotations ?? []).map((annotation) => ({ text, citation: Citations.read(annotation) }))
    )

/** The functions that the model wants called, in its order. */
export const functionCallsOf = ({ output }: Response): ReadonlyArray<FunctionCall> =>
  output.filter(isFunctionCall)

/** What the model tells of its reasoning, one text for each part. */
export const reasoningSummaryOf = ({ output }: Response): ReadonlyArray<string> =>
  output.filter(isReasoning).flatMap(({ summary }) => (summary ?? []).map(({ text }) => text))

/** The tokens of a response, cached and reasoning ones told apart; `undefined` where the server did not tell. */
export const usageOf = (response: Response): Usage.Usage | undefined => Usage.fromReply(response)

/** Whether a response in the background is still on its way. */
export const isPending = ({ status }: Response): boolean => status === "queued" || status === "in_progress"
