/* Events and recommendations: <script src="https://HOST/headwater.js" data-user="ID"> */
(() => {
  const MOST = 1000, BATCH = 20, PAUSE = 1000, LONGEST = 60000
  const script = document.currentScript
  const base = new URL('v1/', script.src).href
  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)),
    (byte) => byte.toString(16).padStart(2, '0')).join('')
  let queue = [], timer = 0, sending = false, failures = 0, { user, key, tenant } = script.dataset

  if (!user) {
    user = random()
    try { // storage may be denied
      user = localStorage.getItem('headwater.user') || user
      localStorage.setItem('headwater.user', user)
    } catch {}
  }

  const headers = { ...key && { 'X-API-Key': key }, ...tenant && { 'Headwater-Tenant': tenant } }
  const post = (path, value) => {
    const body = JSON.stringify(value) // as text/plain: browsers ask nobody beforehand
    return fetch(base + path, {
      method: 'POST', body, headers, credentials: 'omit',
      keepalive: body.length < 3e4 // or refused
    })
  }

  // What did not arrive is tried again: its event_id lets it count once.
  const send = async (batch) => {
    try {
      const answer = await post('events', batch)
      if (!answer.ok) console.warn('headwater', answer.status, await answer.text())
      if (answer.status >= 500 || answer.status === 429) return false
    } catch { return false }
    queue = queue.filter((event) => !batch.includes(event))
    return true
  }

  const later = (pause) => { timer ||= setTimeout(flush, pause) }
  const flush = async () => {
    clearTimeout(timer)
    timer = 0
    if (sending || !queue.length) return
    sending = true
    failures = await send(queue.slice(0, BATCH)) ? 0 : failures + 1
    sending = false
    if (queue.length) later(failures && Math.min(PAUSE * 2 ** failures, LONGEST))
  }

  // A beacon carries no headers.
  const leave = () => {
    for (const rest = [...queue]; rest.length;) {
      const batch = rest.splice(0, BATCH)
      if (key || tenant || !navigator.sendBeacon(base + 'events', JSON.stringify(batch))) send(batch)
      else queue = queue.filter((event) => !batch.includes(event))
    }
  }
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'hidden') leave()
  })

  window.headwater = {
    user,
    /** Sends an event; extra: session_id, recommendation_id, position … */
    track(type, item_id, extra) {
      queue.push({ user_id: user, item_id, type, timestamp: Date.now(), event_id: random(),
        ...extra })
      queue = queue.slice(-MOST)
      if (queue.length < BATCH || failures) later(PAUSE)
      else flush()
    },
    /** Resolves to an answer; more: other fields of the request. */
    async recommend(n = 20, more) {
      const answer = await post('recommendations', { user_id: user, n, ...more })
      if (!answer.ok) throw new Error(`headwater: ${answer.status} ${await answer.text()}`)
      return answer.json()
    }
  }
})()
