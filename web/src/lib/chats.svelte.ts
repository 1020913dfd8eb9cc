// Conversations, kept in this browser only (IndexedDB). The service remembers none of them.

import type { Answer, ChatEnding, Overflow, Searched } from './api'

export interface Reply {
  text: string
  model: string
  ending: ChatEnding | null
  /** Seconds from the question to the first words. */
  firstToken: number | null
  answer: Answer | null
  searched: Searched | null
  error: { message: string; hint: string; code: string } | null
  stopped: boolean
}

export interface Turn {
  id: string
  question: string
  replies: Reply[]
  /** Which of the replies is shown. */
  shown: number
}

export interface Conversation {
  id: string
  title: string
  model: string | null
  knowledgeBase: string | null
  system: string
  temperature: number | null
  /** What is done when it no longer fits; null, or absent in what was kept from before: as the service is set. */
  overflow?: Overflow | null
  turns: Turn[]
  updated: number
}

const DATABASE = 'quinze'
const STORE = 'conversations'

export function newId(): string {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

export function emptyReply(model: string): Reply {
  return { text: '', model, ending: null, firstToken: null, answer: null, searched: null, error: null, stopped: false }
}

let opened: Promise<IDBDatabase> | null = null

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1)
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' })
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
  return opened
}

async function inStore<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const transaction = (await database()).transaction(STORE, mode)
  const request = work(transaction.objectStore(STORE))
  // Asked for now, a commit outlives the page; left to the browser, a reload at this moment would undo the change.
  if (mode === 'readwrite') transaction.commit()
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result)
    transaction.onerror = () => reject(transaction.error)
  })
}

class Chats {
  all = $state<Conversation[]>([])
  loaded = $state(false)

  async load() {
    if (this.loaded) return
    try {
      const found = await inStore<Conversation[]>('readonly', (store) => store.getAll() as IDBRequest<Conversation[]>)
      this.all = found.sort((a, b) => b.updated - a.updated)
    } catch {
      // A browser that keeps nothing (private windows) still chats; the list lasts as long as the page.
    }
    this.loaded = true
  }

  get(id: string): Conversation | undefined {
    return this.all.find((conversation) => conversation.id === id)
  }

  create(fields: Partial<Conversation>): Conversation {
    const conversation: Conversation = {
      id: newId(), title: '', model: null, knowledgeBase: null, system: '', temperature: null, turns: [],
      updated: Date.now(), ...fields,
    }
    this.all.unshift(conversation)
    return this.all[0] as Conversation
  }

  save(conversation: Conversation) {
    conversation.updated = Date.now()
    const plain = $state.snapshot(conversation) as Conversation
    void inStore('readwrite', (store) => store.put(plain)).catch(() => undefined)
  }

  remove(id: string) {
    this.all = this.all.filter((conversation) => conversation.id !== id)
    void inStore('readwrite', (store) => store.delete(id) as IDBRequest<undefined>).catch(() => undefined)
  }
}

export const chats = new Chats()
