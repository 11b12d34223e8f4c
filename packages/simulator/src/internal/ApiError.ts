/** The errors that OpenAI is known to answer with, and the one way to write them. */

export interface ApiError {
  readonly status: number
  readonly message: string
  readonly type: string
  readonly param: string | null
  /** Gateways in front of the API send a number here. */
  readonly code: string | number | null
}

/** The body: all four fields are always there. */
export const body = (error: ApiError): string => JSON.stringify({ error: fields(error) })

export const fields = ({ message, type, param, code }: ApiError) => ({ message, type, param, code })

export const invalidRequest = (
  message: string,
  options?: { readonly status?: number; readonly param?: string; readonly code?: string }
): ApiError => ({
  status: options?.status ?? 400,
  message,
  type: "invalid_request_error",
  param: options?.param ?? null,
  code: options?.code ?? null
})

export const modelNotFound = (model: string): ApiError =>
  invalidRequest(`The model \`${model}\` does not exist or you do not have access to it.`, {
    status: 404,
    code: "model_not_found"
  })

/** An operation of the real API that the simulator does not have. */
export const notSimulated = (method: string, path: string): ApiError => ({
  status: 501,
  message: `The simulator does not serve ${method} /v1${path}.`,
  type: "invalid_request_error",
  param: null,
  code: "not_simulated"
})

export const bodyTooLarge = (limit: number, read: number): ApiError => ({
  status: 413,
  message: `Maximum content size limit (${limit}) exceeded (${read} bytes read)`,
  type: "server_error",
  param: null,
  code: null
})

/** What is known of the request that an error answers. */
export interface Context {
  readonly model: string
  /** As it goes on the wire; undefined when there is no hint. */
  readonly retryAfter: string | undefined
}

interface Entry {
  readonly type: string
  readonly code: string | null
  readonly param?: string
  readonly message: (context: Context) => string
}

const quota = (code: string, message: string): Entry => ({
  type: "insufficient_quota",
  code,
  message: () => message
})

const invalid = (code: string | null, message: string, param?: string): Entry => ({
  type: "invalid_request_error",
  code,
  message: () => message,
  ...(param === undefined ? {} : { param })
})

const rateLimited: Entry = {
  type: "requests",
  code: "rate_limit_exceeded",
  message: ({ model, retryAfter }) =>
    `Rate limit reached for ${model} in organization org-simulator on requests per min (RPM): Limit 500, Used 500, Requested 1.` +
    (retryAfter === undefined ? "" : ` Please try again in ${retryAfter}s.`)
}

const notFound: Entry = {
  type: "invalid_request_error",
  code: "model_not_found",
  message: ({ model }) => `The model \`${model}\` does not exist or you do not have access to it.`
}

const overloaded: Entry = {
  type: "service_unavailable_error",
  code: "server_is_overloaded",
  message: () => "Our servers are currently overloaded. Please try again later."
}

const serverError: Entry = {
  type: "server_error",
  code: null,
  message: () => "The server had an error while processing your request. Sorry about that!"
}

const spendLimit = "You have reached your spend limit. Raise the limit or wait until it is reset."

/** Of PROTOCOL section 1.2: what decides is the code, where there is one. */
const byCode: ReadonlyMap<string, Entry> = new Map(
  [
    invalid(
      "context_length_exceeded",
      "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001 tokens. Please reduce the length of the messages.",
      "messages"
    ),
    invalid(
      "array_above_max_length",
      "Invalid 'tools': array too long. Expected an array with maximum length 128.",
      "tools"
    ),
    invalid(
      "unsupported_parameter",
      "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
      "max_tokens"
    ),
    invalid(
      "conversation_locked",
      "Another process is currently operating on this conversation. Please retry in a few seconds.",
      "conversation"
    ),
    invalid(
      "previous_response_not_found",
      "Previous response with id 'resp_0' not found.",
      "previous_response_id"
    ),
    invalid(
      "invalid_api_key",
      "Incorrect API key provided: sk-…0000. You can find your API key at https://platform.openai.com/account/api-keys."
    ),
    {
      type: "request_forbidden",
      code: "unsupported_country_region_territory",
      message: () => "Country, region, or territory not supported"
    },
    notFound,
    rateLimited,
    { type: "rate_limit_error", code: "slow_down", message: () => "Slow down: your traffic grows too fast." },
    quota(
      "insufficient_quota",
      "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    ),
    quota("credit_balance_exhausted", "Your credit balance is exhausted. Please add credits to continue."),
    quota("organization_spend_limit_exceeded", spendLimit),
    quota("project_spend_limit_exceeded", spendLimit),
    quota("organization_usage_limit_exceeded", "You have reached the usage limit of your organization."),
    overloaded
  ].map((entry) => [entry.code ?? "", entry])
)

const byStatus: ReadonlyMap<number, Entry> = new Map([
  [400, invalid(null, "The request is invalid.")],
  [401, byCode.get("invalid_api_key") ?? serverError],
  [403, byCode.get("unsupported_country_region_territory") ?? serverError],
  [404, notFound],
  [408, { type: "server_error", code: null, message: () => "The request timed out." }],
  [409, invalid(null, "The request conflicts with another one.")],
  [
    413,
    {
      type: "server_error",
      code: null,
      message: () => "Maximum content size limit (26214400) exceeded (26214401 bytes read)"
    }
  ],
  [422, invalid(null, "The request could not be processed.")],
  [429, rateLimited],
  [503, overloaded],
  [504, { type: "server_error", code: null, message: () => "The request timed out upstream." }],
  [529, overloaded]
])

/** The catalogue's error for a status and perhaps a code; what is given explicitly wins. */
export const fromCatalogue = (
  status: number,
  given: {
    readonly code?: string | undefined
    readonly type?: string | undefined
    readonly param?: string | undefined
    readonly message?: string | undefined
  },
  context: Context
): ApiError => {
  const known = given.code === undefined ? undefined : byCode.get(given.code)
  const entry =
    known ?? byStatus.get(status) ?? (status < 500 ? invalid(null, "The request is invalid.") : serverError)
  return {
    status,
    message: given.message ?? entry.message(context),
    type: given.type ?? entry.type,
    param: given.param ?? entry.param ?? null,
    code: given.code ?? entry.code
  }
}

/** The 429 that no waiting helps: the request alone is above the limit. */
export const requestTooLarge = (
  model: string,
  organization = "org-simulator",
  limit = 30_000,
  requested = 35_364
): ApiError => ({
  status: 429,
  message: `Request too large for ${model} in organization ${organization} on tokens per min (TPM): Limit ${limit}, Requested ${requested}. The input or output tokens must be reduced in order to run successfully.`,
  type: "tokens",
  param: null,
  code: "rate_limit_exceeded"
})

/** How Cloudflare writes a gateway error: the code is a number. */
export const gateway = (status: number): ApiError => ({
  status,
  message: "Bad gateway.",
  type: "cf_bad_gateway",
  param: null,
  code: status
})

/** The page of a proxy in front of the API. */
export const html = (status: number): string =>
  `<!DOCTYPE html>\n<html>\n<head><title>api.openai.com | ${status}: ${status === 200 ? "Welcome" : "Bad gateway"}</title></head>\n<body><h1>${status}</h1></body>\n</html>\n`

/** The line of a proxy that could not reach the API. */
export const plainText =
  "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
