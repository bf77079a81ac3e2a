// Sends the token once, from the form or from the part of the address that no server sees, and keeps it nowhere.
const said = document.getElementById("said");

async function open(token) {
  const answer = await fetch("/sign-in", { method: "POST", body: token, credentials: "same-origin" });
  if (answer.ok) {
    location.replace("/");
  } else {
    said.textContent = "This is not the token.";
  }
}

document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  open(document.getElementById("token").value);
});

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", "/");
  open(given);
}
