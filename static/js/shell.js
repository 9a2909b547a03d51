// Progressive enhancement of the frame: CSRF for htmx, shortcuts, polling that rests while the tab is hidden.
(() => {
  document.addEventListener('htmx:configRequest', (event) => {
    const token = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/);
    if (token) event.detail.headers['X-CSRFToken'] = decodeURIComponent(token[1]);
  });
  document.addEventListener('htmx:beforeRequest', (event) => {
    if (document.hidden && event.detail.elt.matches('[hx-trigger^="every"]')) event.preventDefault();
  });

  const jump = () => document.querySelector('.jump input');
  const go = { h: '/', t: '/timeline/', m: '/models/', a: '/approvals/', r: '/reconciliation/', b: '/bundles/' };
  let waiting = false;
  document.addEventListener('keydown', (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === 'k' && jump()) { event.preventDefault(); jump().focus(); return; }
    if (!document.body.hasAttribute('data-keys') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches('input, textarea, select')) return;
    if (waiting) {
      waiting = false;
      const place = go[event.key];
      if (place && document.querySelector(`.rail a[href="${place}"]`)) location.href = place;
      return;
    }
    if (event.key === 'g') waiting = true;
    else if (event.key === '?') document.getElementById('keys')?.showModal();
    else if (event.key === '/') {
      event.preventDefault();
      (document.querySelector('.qfield input') ?? jump())?.focus();
    }
  });

  document.addEventListener('click', async (event) => {
    const button = event.target.closest('[data-copy]');
    if (!button) return;
    event.preventDefault();
    await navigator.clipboard.writeText(button.dataset.copy);
    const before = button.textContent;
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = before; }, 1200);
  });
})();
