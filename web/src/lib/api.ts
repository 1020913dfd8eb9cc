// The one door to the service: every route, every error. The shapes are in shapes.ts. Knows nothing of the screen.

import { readEvents } from './sse'
import type {
  Answer,
  AskEvent,
  BlockPage,
  ChatEnding,
  ChatEvent,
  ChatMessage,
  ContextLedger,
  DocumentInfo,
  IngestEvent,
  JobState,
  KnowledgeBase,
  ModelInfo,
  NewRun,
  Overflow,
  Run,
  RunDetail,
  RunEvent,
  Searched,
  ServiceStatus,
} from './shapes'

export type * from './shapes'

// ---- errors ----------------------------------------------------------------------------------------------------

/** What the service says went wrong. `code` "unreachable": it did not answer at all; "broken_stream": it broke off. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly hint = '',
    readonly status = 0,
  ) {
    super(message)
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}

export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  return new ApiError(error instanceof Error ? error.message : String(error), 'page_fault')
}

function errorFrom(body: unknown, status: number): ApiError {
  const error = (body as { error?: { message?: string; code?: string; type?: string; hint?: string } } | null)?.error
  if (error && typeof error === 'object') {
    return new ApiError(error.message ?? `HTTP ${status}`, error.code ?? error.type ?? 'error', error.hint ?? '', status)
  }
  return new ApiError(`HTTP ${status}`, 'error', '', status)
}

// ---- requests --------------------------------------------------------------------------------------------------

interface Options {
  body?: unknown
  /** Of an event stream: go on after it. */
  after?: string
  signal?: AbortSignal
}

async function send(method: string, path: string, { body, signal, after }: Options): Promise<Response> {
  let response: Response
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: {
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...(after ? { 'Last-Event-ID': after } : {}),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
  } catch (error) {
    if (isAbort(error)) throw error
    throw new ApiError('', 'unreachable')
  }
  if (!response.ok) throw errorFrom(await response.json().catch(() => null), response.status)
  return response
}

async function json<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, options)
  const text = await response.text()
  return (text ? JSON.parse(text) : undefined) as T
}

async function* events(method: string, path: string, options: Options) {
  const response = await send(method, path, options)
  if (!response.body) return
  try {
    yield* readEvents(response.body)
  } catch (error) {
    if (isAbort(error)) throw error
    throw new ApiError('', 'broken_stream')
  }
}

const base = (name: string) => `/api/knowledge/${encodeURIComponent(name)}`
const runPath = (name: string) => `/api/runs/${encodeURIComponent(name)}`
const documentPath = (name: string, id: number) => `${base(name)}/documents/${id}`

// ---- routes ----------------------------------------------------------------------------------------------------

export const api = {
  status: () => json<ServiceStatus>('GET', '/api/status'),
  formats: () => json<{ formats: Record<string, string> }>('GET', '/api/formats').then((r) => r.formats),

  models: () => json<{ models: ModelInfo[] }>('GET', '/api/models').then((r) => r.models),
  addModel: (path: string, name?: string) => json<ModelInfo>('POST', '/api/models', { body: name ? { path, name } : { path } }),
  removeModel: (name: string) => json<void>('DELETE', `/api/models/${encodeURIComponent(name)}`),

  knowledgeBases: () =>
    json<{ knowledge_bases: KnowledgeBase[] }>('GET', '/api/knowledge').then((r) => r.knowledge_bases),
  knowledgeBase: (name: string) => json<KnowledgeBase>('GET', base(name)),
  createKnowledgeBase: (name: string) => json<KnowledgeBase>('POST', '/api/knowledge', { body: { name } }),
  removeKnowledgeBase: (name: string) => json<void>('DELETE', base(name)),

  documents: (name: string) =>
    json<{ documents: DocumentInfo[] }>('GET', `${base(name)}/documents`).then((r) => r.documents),
  document: (name: string, id: number) => json<DocumentInfo>('GET', documentPath(name, id)),
  removeDocument: (name: string, id: number) => json<void>('DELETE', documentPath(name, id)),
  retryDocument: (name: string, id: number) => json<JobState>('POST', `${documentPath(name, id)}/retry`),
  addPaths: (name: string, paths: string[]) => json<JobState>('POST', `${base(name)}/paths`, { body: { paths } }),
  blocks: (name: string, id: number, start: number, limit: number, signal?: AbortSignal) =>
    json<BlockPage>('GET', `${documentPath(name, id)}/blocks?start=${start}&limit=${limit}`, { signal }),
  pageImage: (name: string, id: number, page: number, width: number) =>
    `${documentPath(name, id)}/pages/${page}.png?width=${width}`,
  file: (name: string, id: number) => `${documentPath(name, id)}/file`,

  jobs: () => json<{ jobs: JobState[] }>('GET', '/api/jobs').then((r) => r.jobs),
  job: (id: string) => json<JobState>('GET', `/api/jobs/${id}`),
  cancelJob: (id: string) => json<void>('DELETE', `/api/jobs/${id}`),

  runs: () => json<{ runs: Run[] }>('GET', '/api/runs').then((r) => r.runs),
  run: (name: string, language: string) => json<RunDetail>('GET', `${runPath(name)}?language=${language}`),
  startRun: (run: NewRun) => json<Run>('POST', '/api/runs', { body: run }),
  addRun: (path: string) => json<Run>('POST', '/api/runs/folders', { body: { path } }),
  steerRun: (name: string, verb: 'pause' | 'resume' | 'stop') => json<Run>('POST', `${runPath(name)}/${verb}`),
  forgetRun: (name: string) => json<void>('DELETE', runPath(name)),

  upload,
  jobEvents,
  runEvents,
  ask,
  chat,
}

/** One file, one request. XMLHttpRequest, because fetch does not tell how much has been sent. */
function upload(
  name: string,
  file: File,
  shownName: string,
  onSent: (bytes: number) => void,
  signal: AbortSignal,
): Promise<JobState> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', `${base(name)}/documents?name=${encodeURIComponent(shownName)}`)
    request.setRequestHeader('Content-Type', 'application/octet-stream')
    request.responseType = 'text'
    request.upload.onprogress = (event) => onSent(event.loaded)
    request.onload = () => {
      let body: unknown = null
      try {
        body = JSON.parse(request.responseText)
      } catch {
        // An answer that is not JSON is reported by its status below.
      }
      if (request.status >= 200 && request.status < 300 && body) resolve(body as JobState)
      else reject(errorFrom(body, request.status))
    }
    request.onerror = () => reject(new ApiError('', 'unreachable'))
    request.onabort = () => reject(new DOMException('cancelled', 'AbortError'))
    signal.addEventListener('abort', () => request.abort(), { once: true })
    request.send(file)
  })
}

/** What a job does, as it does it; the last value is the ended job itself. */
async function* jobEvents(id: string, signal: AbortSignal): AsyncGenerator<IngestEvent | JobState> {
  for await (const { event, data } of events('GET', `/api/jobs/${id}/events`, { signal })) {
    if (event === 'progress') yield JSON.parse(data) as IngestEvent
    if (event === 'end') {
      yield JSON.parse(data) as JobState
      return
    }
  }
}

/** At most so many of the steps that are past are sent: a curve shows no more. */
const STEPS = 1500

/** What happens in a run, from after `after` on, each with its number. */
async function* runEvents(
  name: string,
  language: string,
  after: string,
  signal: AbortSignal,
): AsyncGenerator<RunEvent & { id: string }> {
  const path = `${runPath(name)}/events?language=${language}&steps=${STEPS}`
  for await (const { event, data, id } of events('GET', path, { signal, after })) {
    const body = JSON.parse(data)
    if (event === 'step') yield { type: event, step: body, id }
    else if (event === 'evaluation') yield { type: event, evaluation: body, id }
    else if (event === 'finding') yield { type: event, finding: body, id }
    else if (event === 'sample') yield { type: event, sample: body, id }
    else if (event === 'restart') yield { type: event, id: '' }
    else if (event === 'state' || event === 'over') yield { type: event, run: body as Run, id }
    else if (event === 'error') throw errorFrom(body.error ? body : { error: body }, 200)
  }
}

async function* ask(
  request: { knowledge_base: string; question: string; model?: string | null },
  signal: AbortSignal,
): AsyncGenerator<AskEvent> {
  for await (const { event, data } of events('POST', '/api/ask', { body: { ...request, stream: true }, signal })) {
    const body = JSON.parse(data)
    if (event === 'searched') yield { type: 'searched', searched: body as Searched }
    else if (event === 'delta') yield { type: 'delta', text: (body as { text: string }).text }
    else if (event === 'answer') {
      yield { type: 'answer', answer: body as Answer }
      return
    } else if (event === 'error') throw errorFrom(body.error ? body : { error: body }, 200)
  }
  throw new ApiError('', 'broken_stream')
}

interface ChatChunk {
  choices?: { delta?: { content?: string | null }; text?: string; finish_reason?: string | null }[]
  usage?: {
    prompt_tokens?: number
    completion_tokens?: number
    prompt_tokens_details?: { cached_tokens?: number }
  } | null
  timings?: { prefill_seconds?: number; decode_seconds?: number } | null
  context?: ContextLedger | null
  error?: unknown
}

/** A reply, piece by piece. A model without a chat template has no turns: it continues `prompt` instead. */
async function* chat(
  request: { model: string; temperature?: number; context_overflow?: Overflow } & ({ messages: ChatMessage[] } | { prompt: string }),
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const body = { ...request, stream: true, stream_options: { include_usage: true } }
  const route = 'prompt' in request ? '/v1/completions' : '/v1/chat/completions'
  const ending: ChatEnding = {
    finish: null, prompt: 0, completion: 0, cached: 0, prefillSeconds: null, decodeSeconds: null, context: null,
  }
  for await (const { data } of events('POST', route, { body, signal })) {
    if (data === '[DONE]') {
      yield { type: 'end', ending }
      return
    }
    const chunk = JSON.parse(data) as ChatChunk
    if (chunk.error) throw errorFrom(chunk, 200)
    const choice = chunk.choices?.[0]
    const text = choice?.delta?.content ?? choice?.text
    if (text) yield { type: 'delta', text }
    if (choice?.finish_reason) ending.finish = choice.finish_reason
    if (chunk.usage) {
      ending.prompt = chunk.usage.prompt_tokens ?? 0
      ending.completion = chunk.usage.completion_tokens ?? 0
      ending.cached = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0
    }
    if (chunk.timings) {
      ending.prefillSeconds = chunk.timings.prefill_seconds ?? null
      ending.decodeSeconds = chunk.timings.decode_seconds ?? null
    }
    if (chunk.context) ending.context = chunk.context
  }
  throw new ApiError('', 'broken_stream')
}
