// What goes over the wire, as the service writes it. Types only.

export type Box = [left: number, top: number, right: number, bottom: number]

export interface Place {
  page?: number
  slide?: number
  sheet?: string
  cells?: string
  lines?: [number, number]
  paragraph?: number
  table?: number
  row?: number
  heading?: string[]
  symbol?: string
  chapter?: string
  part?: string
  boxes?: Box[]
}

export interface KnowledgeBase {
  name: string
  documents: number
  ready: number
  failed: number
  chunks: number
  bytes: number
  embedder: string
  updated_at: string | null
  error?: string | null
}

export interface DocumentInfo {
  id: number
  name: string
  path: string
  size: number
  format: string
  title: string
  language: string
  pages: number | null
  status: 'ready' | 'failed'
  error: string
  hint: string
  /** What kind of failure it is; '' when there is none, or when it failed before codes were kept. */
  code: string
  warnings: string[]
  blocks: number
  chunks: number
  added_at: string
  seconds: number
}

export type BlockKind = 'heading' | 'paragraph' | 'list_item' | 'table_row' | 'code' | 'caption' | 'note'

export interface Block {
  index: number
  kind: BlockKind
  text: string
  level?: number
  cells?: string[]
  header?: string[]
  place: Place
  label?: string
}

export interface BlockPage {
  total: number
  start: number
  blocks: Block[]
}

export type Stage = 'waiting' | 'reading' | 'indexing' | 'ready' | 'failed' | 'skipped'

export interface IngestEvent {
  document: string
  path: string
  stage: Stage
  page: number | null
  pages: number | null
  error: string
  hint: string
  code: string
  seconds: number
  done: number
  total: number
}

export interface Failure {
  document: string
  error: string
  hint: string
  code: string
}

export interface JobState {
  id: string
  kind: string
  knowledge_base: string
  title: string
  state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled'
  done: number
  total: number
  current: IngestEvent | null
  failed: Failure[]
  created_at: string
  started_at: string | null
  ended_at: string | null
  error: { message: string; code: string; hint: string } | null
}

export type CitationStatus = 'verbatim' | 'supported' | 'weak' | 'unsupported'

export interface Citation {
  number: number
  document: string
  document_id: number
  place: string
  text: string
  score: number
  anchor: Place
  block: number
  status: CitationStatus
}

export interface Passage {
  document: string
  place: string
  anchor: Place
  score: number
  used: boolean
  reason: string
}

export interface Searched {
  knowledge_base: string
  documents: number
  chunks: number
  unread: { document: string; error: string; code: string }[]
  terms: string[]
  passages: Passage[]
  notes: string[]
  seconds: number
}

export interface Answer {
  answer: string
  kind: 'generated' | 'quoted' | 'none'
  citations: Citation[]
  searched: Searched
  model?: string | null
  context?: ContextLedger | null
}

export interface ModelInfo {
  name: string
  path: string
  format: string
  architecture: string
  parameters: number
  bytes: number
  quantization: string
  context_length: number
  can_chat: boolean
  loaded: boolean
  error: string
  /** Address of the server that it runs on; "": it runs on this machine. */
  upstream: string
}

export interface ServiceStatus {
  version: string
  models_loaded: string[]
  default_model: string | null
  embedder: string
  home: string
  settings: Record<string, unknown>
}

/** How full the model's window is; `granted` and `used` are always there, the parts as the model's template allows. */
export interface ContextLedger {
  /** Of a model on another server: who counted. */
  counted_by?: 'upstream' | 'estimated'
  granted?: number
  used?: number
  /** What the model did not read. Conversations kept from before there were entries hold 0 here. */
  dropped?: DroppedEntry[] | number
  dropped_turns?: number
  [part: string]: unknown
}

/** A message, or a piece of one, that there was no room for. */
export interface DroppedEntry {
  part: 'history' | 'prompt' | 'knowledge'
  role: 'user' | 'assistant' | 'tool' | 'system' | null
  turn: number | null
  message: number | null
  whole: boolean
  tokens: number
  begins: string
  sha256: string
}

/** What is done with a conversation that does not fit. */
export type Overflow = 'error' | 'drop_oldest' | 'keep_ends'

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
}

export interface ChatEnding {
  finish: string | null
  prompt: number
  completion: number
  cached: number
  prefillSeconds: number | null
  decodeSeconds: number | null
  context: ContextLedger | null
}

export type AskEvent =
  | { type: 'searched'; searched: Searched }
  | { type: 'delta'; text: string }
  | { type: 'answer'; answer: Answer }

export type ChatEvent = { type: 'delta'; text: string } | { type: 'end'; ending: ChatEnding }

// ---- training ----------------------------------------------------------------------------------------------------

export type RunState = 'running' | 'paused' | 'interrupted' | 'finished' | 'failed'
export type Method = 'pretrain' | 'sft' | 'dpo'

export interface Run {
  name: string
  path: string
  state: RunState
  method: Method | null
  progress: number
  eta_seconds: number | null
  step: number
  tokens: number
  tokens_per_second: number | null
  seconds: number
  loss: number | null
  best_loss: number | null
  best_step: number | null
  bits_per_byte: number | null
  warnings: number
  model: string | null
  message: string
  changed_at: string | null
  lines: number
}

export interface Floors {
  vocab_size: number
  uniform: number
  unigram: number
  bigram: number
  trigram: number
}

export interface Finding {
  id: string
  severity: 'info' | 'warning' | 'stop'
  verdict: string
  why: string
  fix: string
  step: number | null
}

export interface Sample {
  step: number
  prompt: string
  text: string
}

export interface StepReport {
  step: number
  tokens: number
  epoch: number
  seconds: number
  loss: number
  learning_rate: number
  grad_norm: number | null
  tokens_per_second: number
  progress: number
  eta_seconds: number
}

export interface Evaluation {
  step: number
  split: string
  loss: number
  bits_per_byte: number | null
  best: boolean
}

export interface RunDetail extends Run {
  config: { model: { base: string | null }; schedule: { minutes: number | null } } | null
  floors: Floors | null
}

export interface NewRun {
  method: Method
  name?: string
  config: Record<string, Record<string, unknown>>
}

/** What a watched run says. `restart`: all that was told before is void. */
export type RunEvent =
  | { type: 'step'; step: StepReport }
  | { type: 'evaluation'; evaluation: Evaluation }
  | { type: 'finding'; finding: Finding }
  | { type: 'sample'; sample: Sample }
  | { type: 'state' | 'over'; run: Run }
  | { type: 'restart' }
