// Tells on an open dashboard when there is a newer one, when that could not be made, and when the login is over.
const LOOK_MS = 10_000;
const bar = document.getElementById("fairlead-bar");
const trouble = bar.querySelector(".fairlead-trouble");
const news = bar.querySelector(".fairlead-news");

async function look() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(bar.dataset.state, { headers: { accept: "application/json" }, redirect: "error" });
  } catch {
    return; // Away for now.
  }
  if (answer.status === 401) {
    location.reload(); // To the login, which leads back here.
    return;
  }
  if (!answer.ok) return;
  const state = await answer.json();
  news.hidden = state.version === bar.dataset.version;
  trouble.textContent = state.trouble ? `Not the newest: ${state.trouble}` : "";
  trouble.hidden = !state.trouble;
}

setInterval(look, LOOK_MS);
document.addEventListener("visibilitychange", look);
